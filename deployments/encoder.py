"""The encoder deployments: bytes of a medium in, embeds out, batched across requests.

`encode` streams two objects: what the encoding cost, then the embeds. The ingress reads the first
and passes a reference to the second on to the decoder; it never holds the embeds itself.
`reconfigure` is async so that Serve calls it on the loop, where requests are, instead of in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

from ray import serve

from pipeline.encoder import AudioStage, EncodeQueue, VisionStage
from pipeline.fingerprint import fingerprint
from pipeline.types import EncodeStats, Modality

from .codec import PackedEmbeds, pack
from .log import show_pipeline
from .metrics import EncoderMetrics, keep_setting
from .outcomes import Outcomes
from .settings import AppArgs, AudioSettings, VisionSettings, reread
from .turns import take_short_turns


class _EncoderReplica:
    """What both encoders share; a subclass names its parts and applies its settings."""

    stage_type: type[VisionStage | AudioStage]
    settings_type: type[VisionSettings | AudioSettings]
    modality: Modality
    unit: str

    def __init__(self, args: AppArgs) -> None:
        show_pipeline()
        take_short_turns(args.device)
        self.checkpoint = fingerprint(args.checkpoint_path)
        self.outcomes = Outcomes("encoded")
        self.stage: Any = self.stage_type.from_pretrained(
            args.checkpoint_path, device=args.device, dtype=args.dtype, attention=args.attention
        )
        self.stage.warm_up()
        self.metrics = EncoderMetrics(self.modality, self.unit)
        self.queue: EncodeQueue[Any, Any] = EncodeQueue(
            self.stage, budget=1, max_queued=1, on_batch=self.metrics.batch.observe
        )
        self.settings: Any = None
        self._apply(self.settings_type())
        keep_setting(self._set_gauges)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self.settings = reread(self.settings_type, user_config, self.settings)
        self._apply(self.settings)

    def _apply(self, settings: Any) -> None:
        raise NotImplementedError

    def _set_gauges(self) -> None:
        self.metrics.queued.set(self.queue.stats.queued)

    async def encode(self, data: bytes, request_id: str) -> AsyncIterator[EncodeStats | PackedEmbeds]:
        """Raises InvalidMedia, MediaTooLarge, Overloaded; cancelling it frees its place at once."""
        with self.outcomes.watch(request_id) as line:
            try:
                embeds, stats = await self.queue.encode(data)
            finally:
                self._set_gauges()
            self.metrics.per_unit.observe(stats.seconds / stats.units)
            line.update(units=stats.units, batch_units=stats.batch_units, tokens=stats.tokens, nbytes=stats.nbytes)
        yield replace(stats, checkpoint=self.checkpoint)
        yield pack(embeds)

    async def stats(self) -> dict[str, float]:
        """Counters, for tests and for people who debug."""
        return self.outcomes.counts() | asdict(self.queue.stats)

    async def check_health(self) -> None:
        if not self.queue.batcher.healthy:
            raise RuntimeError("the encoder fails on every medium")


@serve.deployment
class VisionEncoder(_EncoderReplica):
    stage_type, settings_type = VisionStage, VisionSettings
    modality, unit = "image", "slice"

    def _apply(self, settings: VisionSettings) -> None:
        self.stage.max_pixels = settings.max_pixels
        self.queue.resize(
            budget=settings.batch_slices,
            max_queued=settings.max_queued_slices,
            workers=settings.decode_threads,
            threads=settings.torch_threads,
        )


@serve.deployment
class AudioEncoder(_EncoderReplica):
    stage_type, settings_type = AudioStage, AudioSettings
    modality, unit = "audio", "second"

    def _apply(self, settings: AudioSettings) -> None:
        self.stage.max_seconds = settings.max_seconds
        self.queue.resize(
            budget=settings.batch_seconds,
            max_queued=settings.max_queued_seconds,
            workers=settings.decode_threads,
            threads=settings.torch_threads,
        )
