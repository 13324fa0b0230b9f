"""The encoder deployments: bytes of a medium in, embeds out, batched across requests.

`encode` streams two objects: what the encoding cost, then the embeds. The ingress reads the first
and passes a reference to the second on to the decoder; it never holds the embeds itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from ray import serve

from pipeline.encoder import AudioStage, EncodeQueue, VisionStage
from pipeline.types import EncodeStats

from .codec import PackedEmbeds, pack
from .metrics import EncoderMetrics
from .outcomes import Outcomes
from .settings import AppArgs, AudioSettings, VisionSettings


class _EncoderReplica:
    """What both encoders share; a subclass makes the stage and its queue."""

    queue: EncodeQueue[Any, Any]
    metrics: EncoderMetrics

    def __init__(self) -> None:
        self.outcomes = Outcomes("encoded")

    async def encode(self, data: bytes, request_id: str) -> AsyncIterator[EncodeStats | PackedEmbeds]:
        """Raises InvalidMedia, MediaTooLarge, Overloaded; cancelling it frees its place at once."""
        with self.outcomes.watch(request_id) as line:
            try:
                embeds, stats = await self.queue.encode(data)
            finally:
                self.metrics.queued.set(self.queue.stats.queued)
            self.metrics.per_unit.observe(stats.seconds / stats.units)
            self.metrics.batch.observe(stats.batch_units)
            line.update(units=stats.units, batch_units=stats.batch_units, tokens=stats.tokens, nbytes=stats.nbytes)
        yield stats
        yield pack(embeds)

    async def stats(self) -> dict[str, float]:
        """Counters, for tests and for people who debug."""
        return self.outcomes.counts() | asdict(self.queue.stats)

    async def check_health(self) -> None:
        if not self.queue.batcher.healthy:
            raise RuntimeError("the encoder fails on every medium")


@serve.deployment
class VisionEncoder(_EncoderReplica):
    def __init__(self, args: AppArgs) -> None:
        super().__init__()
        self.stage = VisionStage.from_pretrained(
            args.checkpoint_path, device=args.device, dtype=args.dtype, attention=args.attention
        )
        self.stage.warm_up()
        self.metrics = EncoderMetrics("image", "slice")
        self.queue = EncodeQueue(self.stage, budget=1, max_queued=1)
        self.reconfigure({})

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        settings = VisionSettings.model_validate(user_config)
        self.stage.max_pixels = settings.max_pixels
        self.queue.resize(
            budget=settings.batch_slices,
            max_queued=settings.max_queued_slices,
            workers=settings.decode_threads,
            threads=settings.torch_threads,
        )


@serve.deployment
class AudioEncoder(_EncoderReplica):
    def __init__(self, args: AppArgs) -> None:
        super().__init__()
        self.stage = AudioStage.from_pretrained(
            args.checkpoint_path, device=args.device, dtype=args.dtype, attention=args.attention
        )
        self.stage.warm_up()
        self.metrics = EncoderMetrics("audio", "second")
        self.queue = EncodeQueue(self.stage, budget=1, max_queued=1)
        self.reconfigure({})

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        settings = AudioSettings.model_validate(user_config)
        self.stage.max_seconds = settings.max_seconds
        self.queue.resize(
            budget=settings.batch_seconds,
            max_queued=settings.max_queued_seconds,
            workers=settings.decode_threads,
            threads=settings.torch_threads,
        )
