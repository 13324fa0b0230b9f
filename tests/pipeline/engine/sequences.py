"""Sequences and logits for the sampler alone, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.engine.sequence import Sequence
from pipeline.types import MediaSpan, Prompt, SamplingParams

VOCAB = 24


def sequence(
    prompt: list[int] | None = None,
    output: list[int] | None = None,
    seed: int = 0,
    choice: int = 0,
    spans: tuple[MediaSpan, ...] = (),
    stop_ids: frozenset[int] = frozenset(),
    **params: Any,
) -> Sequence:
    made = Sequence(
        0,
        Prompt([1, 2, 3] if prompt is None else prompt, spans),
        SamplingParams(**params),
        100,
        (seed, choice),
        stop_ids,
    )
    made.output = list(output or [])
    return made


def logits(seed: int, scale: float = 3.0, size: int = VOCAB) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size).astype(np.float32) * scale)
