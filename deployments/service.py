"""The books of the ingress: who is in, what each request used, one line and the metrics at its end."""

from __future__ import annotations

import time

from .completion import Completions, Trace
from .log import log_event


class Service:
    """What the routes need: the completions, the name of the model, how many requests are in."""

    COMPLETIONS = "/v1/chat/completions"

    def __init__(self, completions: Completions, model: str) -> None:
        self.completions, self.model = completions, model
        self.created = int(time.time())
        self.active = 0

    def enter(self) -> None:
        self.active += 1
        self.set_gauges()

    def set_gauges(self) -> None:
        metrics, cache = self.completions.metrics, self.completions.cache
        metrics.active.set(self.active)
        metrics.cache_bytes.set(cache.bytes)

    def refused(self, path: str, status: int, request_id: str) -> None:
        """A completion that was turned away before any work was done for it."""
        if path == self.COMPLETIONS:
            self.completions.metrics.requests.inc(tags={"status": str(status)})
            log_event("refused", request_id=request_id[:128], status=status)

    def leave(self, trace: Trace) -> None:
        self.active -= 1
        self.set_gauges()
        metrics = self.completions.metrics
        metrics.requests.inc(tags={"status": str(trace.status)})
        usage, tokens = trace.usage, trace.completion_tokens
        if usage:
            text = usage.prompt_tokens - usage.image_tokens - usage.audio_tokens
            kinds = {"text": text, "image": usage.image_tokens, "audio": usage.audio_tokens, "output": tokens}
            for kind, count in kinds.items():
                if count:
                    metrics.tokens.inc(count, tags={"kind": kind})
        ttft = tpot = None
        if trace.first_token and trace.last_token:
            ttft = trace.first_token - trace.begin
            metrics.ttft.observe(ttft)
            each = tokens / trace.answers  # the answers of one request come side by side
            if each > 1:
                tpot = (trace.last_token - trace.first_token) / (each - 1)
                metrics.tpot.observe(tpot)
        log_event(
            "completed",
            request_id=trace.request_id,
            status=trace.status,
            images=trace.images,
            audios=trace.audios,
            prompt_tokens=usage.prompt_tokens if usage else None,
            image_tokens=usage.image_tokens if usage else None,
            audio_tokens=usage.audio_tokens if usage else None,
            completion_tokens=tokens,
            media_cache=trace.cache,
            fetch_seconds=trace.fetch_seconds,
            encode_seconds={name: round(seconds, 4) for name, seconds in trace.encode_seconds.items()},
            prefill_seconds=trace.first_token - trace.decode_begin
            if trace.first_token and trace.decode_begin
            else None,
            ttft_seconds=ttft,
            tpot_seconds=tpot,
            seconds=time.perf_counter() - trace.begin,
        )
