"""The other deployments as the ingress calls them: encode a medium, generate an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.serve.handle import DeploymentHandle

from pipeline.types import ChatRequest, EncodeStats, Modality

from .codec import Piece
from .media_cache import EncodedMedia

ENCODERS: dict[Modality, str] = {"image": "VisionEncoder", "audio": "AudioEncoder"}
DECODER = "LanguageDecoder"


class Stages:
    """Handles to the three stages. Embeds go from encoder to decoder by reference only."""

    def __init__(self, vision: DeploymentHandle, audio: DeploymentHandle, decoder: DeploymentHandle) -> None:
        self._encoders: dict[Modality, Any] = {
            "image": vision.options(stream=True),
            "audio": audio.options(stream=True),
        }
        self._waiting = ThreadPoolExecutor(64, thread_name_prefix="embeds")  # idle threads cost nothing
        self._decoder: Any = decoder.options(stream=True)

    async def encode(self, modality: Modality, data: bytes, request_id: str) -> EncodedMedia:
        """Waits for the encoder's report; the embeds stay where they are. Cancelling cancels it."""
        begin = time.perf_counter()
        response = self._encoders[modality].encode.remote(data, request_id)
        try:
            refs = await response._to_object_ref_gen()
            stats: EncodeStats = await (await anext(refs))
            # Ray's `anext` would fetch the embeds to this node; `next` waits without fetching.
            ref = await asyncio.get_running_loop().run_in_executor(self._waiting, next, refs)
            if ref == refs.completed():  # no embeds, but what the encoder died of after its report
                await ref
        except BaseException:
            response.cancel()
            raise
        return EncodedMedia(ref, stats, time.perf_counter() - begin)

    async def generate(self, request: ChatRequest, media: Sequence[EncodedMedia]) -> AsyncGenerator[Piece, None]:
        """Streams the answers. Closing or cancelling it cancels the decoder's work."""
        # Only top-level arguments are resolved on their way; a reference in a list would arrive as such.
        arguments = {f"media_{i}": item.ref for i, item in enumerate(media)}
        response = self._decoder.generate.remote(request, **arguments)
        done = False
        try:
            async for piece in response:
                yield piece
            done = True
        finally:
            if not done:
                response.cancel()
