"""One chat completion, from the checked request to the last delta."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pipeline.config import ModelConfig
from pipeline.errors import GenerationFailed, InvalidMedia
from pipeline.types import ChatRequest, Delta, Message, Modality, PromptUsage

from .api_errors import DIED, LOST, ApiError, root_cause, to_api_error
from .codec import Piece
from .log import log_event
from .media import Account, Fetcher, decode_base64, decode_data_url
from .media_cache import EncodedMedia, MediaCache
from .metrics import IngressMetrics
from .protocol import AudioPart, ChatCompletionRequest, ImagePart, TextPart
from .readiness import Readiness
from .settings import IngressSettings
from .stages import DECODER, ENCODERS, Stages

Result = TypeVar("Result")

ATTEMPTS = 3
"""A lost object or a replica that died costs one attempt; only before the first token."""
RETRY_SECONDS = 0.1  # before the second attempt, and longer each time


@dataclass(frozen=True)
class MediaPart:
    """A medium as the client sent it, and where it stands in the request."""

    modality: Modality
    source: str
    param: str


@dataclass
class Trace:
    """What a request did and when, for its log line, its metrics and its usage."""

    request_id: str
    answers: int = 1
    begin: float = field(default_factory=time.perf_counter)
    images: int = 0
    audios: int = 0
    cache: dict[str, int] = field(default_factory=dict)
    fetch_seconds: float = 0.0
    encode_seconds: dict[str, float] = field(default_factory=dict)  # the slowest medium of each modality
    decode_begin: float | None = None
    usage: PromptUsage | None = None
    first_token: float | None = None
    last_token: float | None = None
    completion_tokens: int = 0
    status: int = 200

    def saw(self, piece: Piece) -> None:
        self.last_token = time.perf_counter()
        self.first_token = self.first_token or self.last_token
        self.usage = piece.usage or self.usage
        self.completion_tokens += sum(len(delta.token_ids) for delta in piece.deltas)


class Completions:
    """Runs completions over the stages. Knows OpenAI's request, nothing of HTTP."""

    def __init__(self, config: ModelConfig, stages: Stages, readiness: Readiness, checkpoint: str = "") -> None:
        """`checkpoint`: its fingerprint. While a cluster changes to another, encoders of both answer; what those of the
        other have computed is neither kept nor named."""
        self.config, self.stages, self.readiness, self.checkpoint = config, stages, readiness, checkpoint
        self.settings = IngressSettings()
        self.cache = MediaCache(self.settings.media_cache_bytes)
        self.fetcher = Fetcher(self.settings.fetch)
        self.metrics = IngressMetrics()

    def configure(self, settings: IngressSettings) -> None:
        self.settings = settings
        self.cache.resize(settings.media_cache_bytes)
        self.fetcher.settings = settings.fetch

    async def run(self, body: ChatCompletionRequest, trace: Trace) -> AsyncGenerator[list[Delta], None]:
        """Pieces of the answers. Raises before the first piece what can be known by then."""
        settings = self.settings
        if len(body.messages) > settings.max_messages:
            message = f"the request holds {len(body.messages)} messages; at most {settings.max_messages} are allowed"
            raise ApiError(400, message, param="messages", code="context_length_exceeded")
        messages, parts = read_messages(body)
        characters = sum(len(message.text) for message in messages)
        if characters > settings.max_text_characters:
            raise ApiError(
                400,
                f"the messages hold {characters:,} characters; at most {settings.max_text_characters:,} are allowed",
                param="messages",
                code="context_length_exceeded",
            )
        if len(parts) > settings.max_media:
            message = f"the request holds {len(parts)} media; at most {settings.max_media} are allowed"
            raise ApiError(413, message, param="messages", code="too_many_media")
        if (body.n or 1) > settings.max_answers:
            raise ApiError(400, f"n: at most {settings.max_answers} answers", param="n", code="invalid_value")
        trace.images = sum(part.modality == "image" for part in parts)
        trace.audios = len(parts) - trace.images
        await self._check_ready({part.modality for part in parts})

        params, stream = body.sampling(self.config.generation), bool(body.stream)
        with self.fetcher.account() as account:
            data = await self._load(parts, account, trace)
            keys = [await asyncio.to_thread(self._digest, part, item) for part, item in zip(parts, data, strict=True)]
            request = ChatRequest(tuple(messages), params, body.n or 1, trace.request_id, stream)
            pieces, first = await self._start(request, parts, data, keys, trace)
            del parts, data  # not needed any more, and large
        try:
            yield _deltas(first, trace)
            async for piece in pieces:
                yield _deltas(piece, trace)
        finally:
            await pieces.aclose()

    async def _check_ready(self, modalities: set[Modality]) -> None:
        needed = {DECODER} | {ENCODERS[m] for m in modalities}
        if missing := await self.readiness.missing(needed):
            raise ApiError(503, f"not ready yet: {', '.join(missing)}", code="not_ready", retry_after=5)

    async def _load(self, parts: list[MediaPart], account: Account, trace: Trace) -> list[bytes]:
        begin = time.perf_counter()
        data = await _all([self._bytes(part, account) for part in parts], parts)
        trace.fetch_seconds = time.perf_counter() - begin
        return data

    async def _bytes(self, part: MediaPart, account: Account) -> bytes:
        limit, source = self.settings.max_media_bytes, part.source
        scheme = source[:8].lower()
        if scheme.startswith("data:"):
            return await asyncio.to_thread(decode_data_url, source, limit)
        if part.modality == "audio" and not scheme.startswith(("http://", "https://")):
            return await asyncio.to_thread(decode_base64, source, limit)
        return await self.fetcher.fetch(source, account)

    def _digest(self, part: MediaPart, data: bytes) -> str:
        processor = self.config.image_processor if part.modality == "image" else self.config.audio_processor
        return hashlib.sha256(f"{part.modality} {processor} {self.checkpoint}\0".encode() + data).hexdigest()

    async def _start(
        self, request: ChatRequest, parts: list[MediaPart], data: list[bytes], keys: list[str], trace: Trace
    ) -> tuple[AsyncGenerator[Piece, None], Piece]:
        """The stream and its first piece, so that an early error still has its HTTP status.

        Objects that were lost are encoded again, and a decoder that died is replaced by another.
        """
        for attempt in range(1, ATTEMPTS + 1):
            media: list[EncodedMedia] = []
            pieces = None
            try:
                media = await self._encode_all(parts, data, keys, trace)
                trace.decode_begin = time.perf_counter()
                names = (key if self._ours(item) else None for key, item in zip(keys, media, strict=True))
                pieces = self.stages.generate(replace(request, media_keys=tuple(names)), media)
                return pieces, await anext(pieces)
            except BaseException as error:
                if pieces is not None:
                    await pieces.aclose()
                cause = root_cause(error)
                if isinstance(error, Exception) and to_api_error(cause) is None:  # lost embeds, or who knows what
                    for key, item in zip(keys, media, strict=False):  # no media: an encoder's own loss
                        self.cache.forget(key, item.ref)
                if attempt == ATTEMPTS or not isinstance(cause, LOST + DIED):
                    raise
                log_event(
                    "embeds_lost" if isinstance(cause, LOST) else "replica_died",
                    level=logging.WARNING,
                    request_id=trace.request_id,
                    attempt=attempt,
                )
                await asyncio.sleep(RETRY_SECONDS * attempt)
        raise AssertionError("unreachable")

    def _ours(self, encoded: EncodedMedia) -> bool:
        return encoded.stats.checkpoint == self.checkpoint

    async def _encode_all(
        self, parts: list[MediaPart], data: list[bytes], keys: list[str], trace: Trace
    ) -> list[EncodedMedia]:
        work = [self._encode(part, item, key, trace) for part, item, key in zip(parts, data, keys, strict=True)]
        return await _all(work, parts)

    async def _encode(self, part: MediaPart, data: bytes, key: str, trace: Trace) -> EncodedMedia:
        encoded, outcome = await self.cache.get(key, lambda: self.stages.encode(part.modality, data, trace.request_id))
        if not self._ours(encoded):
            self.cache.forget(key, encoded.ref)
        if outcome != "hit":
            trace.encode_seconds[part.modality] = max(encoded.seconds, trace.encode_seconds.get(part.modality, 0.0))
        trace.cache[outcome] = trace.cache.get(outcome, 0) + 1
        self.metrics.cache_lookups.inc(tags={"outcome": outcome})
        return encoded


async def _all(work: Sequence[Coroutine[Any, Any, Result]], parts: Sequence[MediaPart]) -> list[Result]:
    """Everything at once, in order. The first failure cancels the rest; a medium's says which part
    of the request it was."""

    async def named(coroutine: Coroutine[Any, Any, Result], part: MediaPart) -> Result:
        try:
            return await coroutine
        except Exception as error:
            cause = root_cause(error)
            if isinstance(cause, InvalidMedia):
                raise type(cause)(f"{part.param}: {cause.message}", part.param) from None
            raise

    tasks = [asyncio.ensure_future(named(c, part)) for c, part in zip(work, parts, strict=True)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def read_messages(body: ChatCompletionRequest) -> tuple[list[Message], list[MediaPart]]:
    """OpenAI's parts -> our turns. Texts of one turn are joined by newlines; pictures come first,
    then recordings, then text, as the model was trained."""
    messages: list[Message] = []
    media: list[MediaPart] = []
    for i, message in enumerate(body.messages):
        parts = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content
        texts, images, audios = [], [], []
        for j, part in enumerate(parts):
            param = f"messages[{i}].content[{j}]"
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif isinstance(part, ImagePart):
                images.append(len(media))
                media.append(MediaPart("image", part.image_url.url, param))
            elif isinstance(part, AudioPart):
                audios.append(len(media))
                media.append(MediaPart("audio", part.input_audio.data, param))
        role = "system" if message.role == "developer" else message.role
        messages.append(Message(role, "\n".join(texts), tuple(images), tuple(audios)))
    return messages, media


def _deltas(piece: Piece, trace: Trace) -> list[Delta]:
    trace.saw(piece)
    for delta in piece.deltas:
        if delta.finish_reason == "error":
            raise GenerationFailed(delta.error or "the model failed on this request")
    return piece.deltas
