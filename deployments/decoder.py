"""The language deployment: messages and embeds in, pieces of text out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

from ray import serve

from pipeline.driver import Driver, merge
from pipeline.engine.engine import EngineConfig, EngineStats
from pipeline.generator import Generator
from pipeline.processing.chat import prompt_usage
from pipeline.types import ChatRequest, Delta, MediaEmbeds, Prompt, PromptUsage

from .codec import PackedEmbeds, Piece, unpack
from .log import show_pipeline
from .metrics import DecoderMetrics, keep_setting
from .outcomes import Outcomes
from .settings import AppArgs, DecoderSettings, reread
from .turns import take_short_turns

METRICS_PERIOD = 0.5  # seconds between two looks at the gauges


@serve.deployment
class LanguageDecoder:
    def __init__(self, args: AppArgs) -> None:
        show_pipeline()
        take_short_turns(args.device)
        engine = args.engine
        generator = Generator.from_pretrained(
            args.checkpoint_path,
            device=args.device,
            dtype=args.dtype,
            attention=args.attention,
            weights=args.weights,
            cuda_graphs=args.cuda_graphs,
            engine=EngineConfig(
                kv_cache=engine.kv_cache,
                block_size=engine.block_size,
                max_context=engine.max_context,
                prefix_caching=engine.prefix_caching,
            ),
        )
        self.metrics = DecoderMetrics()
        self._looked, self._steps, self._counted = 0.0, 0, generator.engine.stats
        self.outcomes = Outcomes("generated")
        self.driver = Driver(generator, on_change=self._observe)
        self.settings: DecoderSettings | None = None
        self._apply(DecoderSettings())
        keep_setting(self._set_gauges)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self.settings = reread(DecoderSettings, user_config, self.settings)
        self._apply(self.settings)

    def _apply(self, settings: DecoderSettings) -> None:
        self.driver.resize(
            max_batch_tokens=settings.max_batch_tokens,
            step_seconds=None if settings.step_ms is None else settings.step_ms / 1000,
            max_running=settings.max_running,
            max_waiting=settings.max_waiting,
            default_max_tokens=settings.default_max_tokens,
            threads=settings.torch_threads,
        )

    async def generate(self, request: ChatRequest, **media: PackedEmbeds) -> AsyncIterator[Piece]:
        """`media_0`, `media_1` … are the request's media in order.

        Raises InvalidRequest, ContextOverflow, Overloaded before the first piece. Closing or
        cancelling frees the sequences before the next step of the engine.
        """
        with self.outcomes.watch(request.request_id) as line:
            prompt, embeds = await asyncio.to_thread(self._prepare, request, media)
            usage: PromptUsage | None = prompt_usage(prompt, embeds)
            line.update(prompt_tokens=len(prompt.token_ids), completion_tokens=0)
            pieces = self.driver.generate(prompt, embeds, request.params, request.n)
            rest: list[Delta] = []
            try:
                async for deltas in pieces:
                    line["completion_tokens"] += sum(len(delta.token_ids) for delta in deltas)
                    if usage:
                        usage = replace(usage, cached_tokens=min(delta.cached_tokens for delta in deltas))
                    if request.stream or usage:  # the first piece says that all is well
                        yield Piece(deltas, usage)
                        usage = None  # said once
                    else:
                        rest += deltas
                if rest:
                    yield Piece(merge(rest), None)
            finally:
                await pieces.aclose()

    async def stats(self) -> dict[str, float]:
        """Counters, for tests and for people who debug."""
        return self.outcomes.counts() | asdict(self.driver.stats)

    async def check_health(self) -> None:
        if not self.driver.healthy:
            raise RuntimeError("the engine has stopped")

    def _prepare(self, request: ChatRequest, media: dict[str, PackedEmbeds]) -> tuple[Prompt, list[MediaEmbeds]]:
        assert len(request.media_keys) in (len(media), 0)
        keys = request.media_keys or (None,) * len(media)
        embeds = [replace(unpack(media[f"media_{i}"]), key=key) for i, key in enumerate(keys)]
        return self.driver.generator.prompt(request.messages, embeds), embeds

    def _observe(self, stats: EngineStats) -> None:
        """From the engine's thread, whenever something has changed."""
        if stats.steps != self._steps:
            self._steps = stats.steps
            self.metrics.batch.observe(stats.last_batch)
        now = time.monotonic()
        if now - self._looked < METRICS_PERIOD and stats.running:
            return
        before, self._looked, self._counted = self._counted, now, stats
        for counter, name in (
            (self.metrics.preemptions, "preemptions"),
            (self.metrics.prompt_tokens, "prompt_tokens"),
            (self.metrics.found_tokens, "found_tokens"),
        ):
            if more := getattr(stats, name) - getattr(before, name):
                counter.inc(more)
        self._set_gauges()

    def _set_gauges(self) -> None:
        stats = self.driver.stats
        self.metrics.running.set(stats.running)
        self.metrics.waiting.set(stats.waiting)
        self.metrics.blocks.set(stats.blocks_used)
        self.metrics.blocks_total.set(stats.blocks_total)
        self.metrics.blocks_kept.set(stats.blocks_kept)
