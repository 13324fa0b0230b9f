"""The application's metrics, exported by Ray in Prometheus' format. Times are in seconds."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from ray.serve import metrics

GAUGE_SECONDS = 5.0
"""Ray's agent forgets a gauge that nobody has set for twice its reporting period, 20 s by default."""

_LATENCY = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
_PER_TOKEN = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]
_COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def keep_setting(gauges: Callable[[], None], seconds: float = GAUGE_SECONDS) -> None:
    """Calls a method that sets gauges, every so many seconds, for as long as its object lives."""
    method = weakref.WeakMethod(gauges)
    pause = threading.Event()

    def work() -> None:
        while not pause.wait(seconds) and (call := method()) is not None:
            call()
            del call

    threading.Thread(target=work, name="gauges", daemon=True).start()


class IngressMetrics:
    def __init__(self) -> None:
        self.requests = metrics.Counter(
            "megrez_requests", "Chat completions by HTTP status; 499: the client left", tag_keys=("status",)
        )
        self.tokens = metrics.Counter("megrez_tokens", "Tokens by kind", tag_keys=("kind",))
        self.ttft = metrics.Histogram(
            "megrez_time_to_first_token_seconds", "From request to first token", boundaries=_LATENCY
        )
        self.tpot = metrics.Histogram(
            "megrez_time_per_output_token_seconds", "Between tokens after the first", boundaries=_PER_TOKEN
        )
        self.active = metrics.Gauge("megrez_requests_active", "Requests being served")
        self.cache_bytes = metrics.Gauge("megrez_media_cache_bytes", "Embeds kept for media that may come back")
        self.cache_lookups = metrics.Counter(
            "megrez_media_cache_lookups", "Media by outcome: hit, shared, miss", tag_keys=("outcome",)
        )


class EncoderMetrics:
    """`unit` is a slice of a picture or a second of sound."""

    def __init__(self, modality: str, unit: str) -> None:
        tags = {"modality": modality, "unit": unit}
        self.per_unit = metrics.Histogram(
            f"megrez_encode_seconds_per_{unit}", f"Encoding, queueing included, per {unit}", boundaries=_LATENCY
        )
        self.batch = metrics.Histogram(
            "megrez_encode_batch_units", "Slices or seconds in a batch", boundaries=_COUNTS, tag_keys=tuple(tags)
        )
        self.queued = metrics.Gauge("megrez_encode_queued_units", "Slices or seconds in line", tag_keys=tuple(tags))
        for metric in (self.batch, self.queued):
            metric.set_default_tags(dict(tags))  # Serve adds its own to the dict


class DecoderMetrics:
    def __init__(self) -> None:
        self.running = metrics.Gauge("megrez_sequences_running", "Sequences being computed")
        self.waiting = metrics.Gauge("megrez_sequences_waiting", "Sequences in the queue")
        self.blocks = metrics.Gauge("megrez_kv_blocks_used", "Blocks of the KV cache in use")
        self.blocks_total = metrics.Gauge("megrez_kv_blocks_total", "Blocks of the KV cache")
        self.blocks_kept = metrics.Gauge("megrez_kv_blocks_kept", "Blocks kept for prompts that may begin alike")
        self.prompt_tokens = metrics.Counter("megrez_prefix_tokens", "Tokens of prompts")
        self.found_tokens = metrics.Counter("megrez_prefix_tokens_found", "Of these, tokens found in the KV cache")
        self.batch = metrics.Histogram("megrez_batch_sequences", "Sequences in a step", boundaries=_COUNTS)
        self.preemptions = metrics.Counter("megrez_preemptions", "Sequences preempted")
