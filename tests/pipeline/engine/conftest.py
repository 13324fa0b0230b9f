from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model.decoder import DecoderModel


@pytest.fixture
def make(golden_decoder: DecoderModel) -> Callable[..., Engine]:
    """Engines of the small decoder, with 128 blocks of cache unless told otherwise."""

    def build(eos: tuple[int, ...] = (), **config: Any) -> Engine:
        return Engine(golden_decoder, EngineConfig(**{"kv_cache": CacheBudget(128), **config}), eos)

    return build
