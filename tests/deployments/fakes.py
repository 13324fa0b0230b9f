"""Stand-ins for what lives in other processes, and a loop that is strict about loose ends."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from ray.exceptions import RayTaskError

from deployments.api import Service, build_api
from deployments.codec import Piece
from deployments.completion import Completions
from deployments.media_cache import EncodedMedia
from deployments.protocol import Health, StageHealth
from deployments.readiness import Readiness
from deployments.settings import IngressSettings
from pipeline.config import ModelConfig
from pipeline.types import ChatRequest, Delta, EncodeStats, Modality, PromptUsage

Result = TypeVar("Result")
Step = Piece | BaseException | asyncio.Event | float

MODEL = "megrez-test"
STAGES = ("AudioEncoder", "Ingress", "LanguageDecoder", "VisionEncoder")


def run(coroutine: Coroutine[Any, Any, Result], *, seconds: float = 20) -> Result:
    """asyncio.run; what the loop would only log (an exception never retrieved, say) fails the test."""
    problems: list[dict[str, Any]] = []

    async def main() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(seconds):
            result = await coroutine
        await asyncio.sleep(0)
        gc.collect(1)  # the complaint comes when the task is collected
        await asyncio.sleep(0)
        return result

    result = asyncio.run(main())
    assert not problems
    return result


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What goes to Serve's logger, which hands nothing on to pytest once Serve has set it up."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


async def until(condition: Any, seconds: float = 5) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it didn't come true"
        await asyncio.sleep(0.001)


def task_error(cause: Exception) -> BaseException:
    """What an awaited Ray call raises when the other process raised `cause`."""
    return RayTaskError(
        "generate", "Traceback …", cause, proctitle="replica", pid=1, ip="127.0.0.1"
    ).as_instanceof_cause()


def encoded(ref: Any = "ref", nbytes: int = 100, checkpoint: str = "") -> EncodedMedia:
    return EncodedMedia(ref, EncodeStats(1.0, 0.0, 1.0, 4, nbytes, checkpoint), 0.01)


USAGE = PromptUsage(prompt_tokens=12, image_tokens=4, audio_tokens=3, cached_tokens=5)


def pieces(*texts: str, reason: str = "stop", index: int = 0) -> list[Step]:
    """One piece a text; the first tells the usage, the last how it ended."""
    return [
        Piece(
            [Delta(index, text, (i,), finish_reason=reason if i == len(texts) - 1 else None)],  # type: ignore[arg-type]
            USAGE if i == 0 else None,
        )
        for i, text in enumerate(texts)
    ]


FIRST = pieces("Hello", ", ", "world")[:1]
"""The beginning of an answer that goes on."""


class FakeStages:
    """Encoders and a decoder that follow a script: a piece is sent, an error raised, an event or a
    number of seconds awaited. The last script goes for all later calls, too."""

    def __init__(self) -> None:
        self.answers: deque[list[Step]] = deque([pieces("Hello", ", ", "world")])
        self.encodings: deque[list[Step]] = deque([[]])
        self.encoded: list[tuple[Modality, bytes]] = []
        self.encode_cancelled = self.encoding = self.peak_encoding = 0
        self.requests: list[ChatRequest] = []
        self.media: list[list[Any]] = []
        self.opened = self.closed = self.left = 0
        self.slow_close = 0.0
        self.checkpoint = ""

    async def encode(self, modality: Modality, data: bytes, request_id: str) -> EncodedMedia:
        self.encoded.append((modality, data))
        self.encoding += 1
        self.peak_encoding = max(self.peak_encoding, self.encoding)
        number = len(self.encoded)
        try:
            for step in _script(self.encodings):
                await _act(step)
            await asyncio.sleep(0)
            return encoded(f"ref-{number}", checkpoint=self.checkpoint)
        except asyncio.CancelledError:
            self.encode_cancelled += 1
            raise
        finally:
            self.encoding -= 1

    async def generate(self, request: ChatRequest, media: Sequence[EncodedMedia]) -> AsyncGenerator[Piece, None]:
        self.requests.append(request)
        self.media.append([item.ref for item in media])
        self.opened += 1
        done = False
        try:
            for step in _script(self.answers):
                if isinstance(step, Piece):
                    yield step
                else:
                    await _act(step)
            done = True
        finally:
            self.closed += 1
            self.left += not done
            if self.slow_close:
                await asyncio.sleep(self.slow_close)

    @property
    def open(self) -> int:
        return self.opened - self.closed


def _script(scripts: deque[list[Step]]) -> list[Step]:
    return scripts.popleft() if len(scripts) > 1 else scripts[0]


async def _act(step: Step) -> None:
    if isinstance(step, asyncio.Event):
        await step.wait()
    elif isinstance(step, BaseException):
        raise step
    elif isinstance(step, int | float):
        await asyncio.sleep(step)


class FakeReadiness(Readiness):
    """The controller's view is set by the test; asking and caching are the real ones."""

    def __init__(self) -> None:
        super().__init__("megrez")
        self.down: set[str] = set()

    def _ask(self) -> Health:
        stages = {
            name: StageHealth(
                status="UNHEALTHY" if name in self.down else "HEALTHY",
                running=int(name not in self.down),
                ready=name not in self.down,
            )
            for name in STAGES
        }
        return Health(ready=not self.down, stages=stages)


class Recorder:
    """A metric that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        self.seen.append((value, tags or {}))

    set = observe = inc

    def total(self, **tags: str) -> float:
        return sum(value for value, seen in self.seen if seen == tags)


class House:
    """The ingress without Ray: real routes, completions and cache over fake stages."""

    def __init__(self, config: ModelConfig, **settings: Any) -> None:
        self.stages, self.readiness = FakeStages(), FakeReadiness()
        self.completions = Completions(config, self.stages, self.readiness)  # type: ignore[arg-type]
        self.configure(**settings)
        metrics = self.completions.metrics
        self.metrics = {name: Recorder() for name in ("requests", "tokens", "ttft", "tpot", "active", "cache_lookups")}
        for name, recorder in self.metrics.items():
            setattr(metrics, name, recorder)
        self.service = Service(self.completions, MODEL)
        self.api: FastAPI = build_api(self.service)

    def configure(self, **settings: Any) -> None:
        self.completions.configure(IngressSettings.model_validate(settings))

    @asynccontextmanager
    async def client(self, *, raise_bugs: bool = True, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=raise_bugs, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    async def post(self, body: Any = None, *, raise_bugs: bool = True, **fields: Any) -> httpx.Response:
        async with self.client(raise_bugs=raise_bugs) as client:
            return await client.post("/v1/chat/completions", json=chat(**fields) if body is None else body)

    def idle(self) -> bool:
        """Nobody holds anything any more."""
        return self.service.active == 0 and self.stages.open == 0 and self.completions.cache.encoding == 0


def chat(content: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def image(data: str = "aW1hZ2U=") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def audio(data: str = "YXVkaW8=") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def events(text: str) -> list[Any]:
    """The payloads of a server-sent stream."""
    assert text.endswith("\n\n")
    lines = text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [line if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in lines]
