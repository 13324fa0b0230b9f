"""The encoders' replicas, without a cluster: their settings reach the stage, and their health is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.encoder import AudioEncoder, VisionEncoder
from deployments.settings import AppArgs


@pytest.fixture(scope="module", params=[VisionEncoder, AudioEncoder], ids=["vision", "audio"])
def encoder(request: pytest.FixtureRequest) -> Iterator[Any]:
    replica = request.param.func_or_class(AppArgs(checkpoint="checkpoints/megrez-omni-mini"))
    yield replica
    replica.queue.close()


def limits(encoder: Any) -> tuple[Any, ...]:
    stage, queue = encoder.stage, encoder.queue
    own = stage.max_pixels if encoder.modality == "image" else stage.max_seconds
    return own, queue.batcher.budget, queue.batcher.max_queued, queue._decoders._max_workers


def test_a_user_config_reaches_the_stage_and_its_queue(encoder: Any) -> None:
    vision = {"max_pixels": 1000, "batch_slices": 3, "max_queued_slices": 5, "decode_threads": 1}
    audio = {"max_seconds": 7.0, "batch_seconds": 4.0, "max_queued_seconds": 9.0, "decode_threads": 3}
    wanted = vision if encoder.modality == "image" else audio
    defaults = encoder.settings_type()
    asyncio.run(encoder.reconfigure({}))
    assert limits(encoder) == tuple(getattr(defaults, name) for name in wanted)
    asyncio.run(encoder.reconfigure(wanted))
    assert limits(encoder) == tuple(wanted.values())


def test_what_is_wrong_changes_nothing(encoder: Any) -> None:
    asyncio.run(encoder.reconfigure({}))
    before = limits(encoder)
    asyncio.run(encoder.reconfigure({"decode_threads": 0}))
    assert limits(encoder) == before


def test_health(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(encoder.check_health())
    monkeypatch.setattr(type(encoder.queue.batcher), "healthy", False)
    with pytest.raises(RuntimeError):
        asyncio.run(encoder.check_health())
