from __future__ import annotations

import gc
import time
from typing import Any

import pytest

from deployments.metrics import DecoderMetrics, EncoderMetrics, IngressMetrics, keep_setting


def test_ingress_tags() -> None:
    metrics = IngressMetrics()
    metrics.requests.inc(tags={"status": "200"})
    metrics.tokens.inc(3, tags={"kind": "image"})
    metrics.cache_lookups.inc(tags={"outcome": "hit"})
    for histogram in (metrics.ttft, metrics.tpot):
        histogram.observe(0.1)
    for gauge in (metrics.active, metrics.cache_bytes):
        gauge.set(0)
    for metric, tag in ((metrics.requests, "status"), (metrics.tokens, "kind"), (metrics.cache_lookups, "outcome")):
        with pytest.raises(ValueError, match=tag):
            metric.inc()


def test_encoders_differ_by_modality_and_unit() -> None:
    vision, audio = EncoderMetrics("image", "slice"), EncoderMetrics("audio", "second")
    assert vision.per_unit.info["name"] == "megrez_encode_seconds_per_slice"
    assert audio.per_unit.info["name"] == "megrez_encode_seconds_per_second"
    for metrics, modality in ((vision, "image"), (audio, "audio")):
        metrics.per_unit.observe(0.1)
        metrics.batch.observe(4)
        metrics.queued.set(2)
        assert metrics.batch.info["default_tags"]["modality"] == modality


def test_two_metrics_share_no_tags() -> None:
    metrics = EncoderMetrics("image", "slice")
    # Serve writes the replica's name into the dict it is given.
    assert metrics.batch.info["default_tags"] is not metrics.queued.info["default_tags"]


def test_names_are_ours_and_unique() -> None:
    groups = (IngressMetrics(), EncoderMetrics("image", "slice"), DecoderMetrics())
    names = [metric.info["name"] for group in groups for metric in vars(group).values()]
    assert len(set(names)) == len(names) == 19
    assert all(name.startswith("megrez_") for name in names)


def test_gauges_are_set_again_and_again_while_somebody_has_them() -> None:
    class Replica:
        def set_gauges(self) -> None:
            seen.append(time.monotonic())

    seen: list[float] = []
    replica: Any = Replica()
    keep_setting(replica.set_gauges, seconds=0.01)
    deadline = time.monotonic() + 5
    while len(seen) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    del replica
    gc.collect()
    time.sleep(0.05)
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count
