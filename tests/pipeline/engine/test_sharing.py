"""What one sequence has computed is found by the next that begins so; not where that is off, nor after a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.engine.engine import Engine
from pipeline.engine.scheduler import Chunk
from pipeline.engine.sequence import Sequence
from tests.pipeline.helpers import drain, greedy, text_prompt


def found_again(engine: Engine) -> int:
    """Tokens of the same prompt, for the second time, that were in the cache."""
    prompt = text_prompt(40)
    for _ in range(2):
        number = engine.add(prompt, [], greedy(3))
        first = drain(engine)[number][0]
    return first.found


def test_a_second_prompt_finds_whole_blocks(make: Callable[..., Engine]) -> None:
    assert found_again(make(block_size=16)) == 32


def test_switched_off_nothing_is_found(make: Callable[..., Engine]) -> None:
    assert found_again(make(block_size=16, prefix_caching=False)) == 0


@pytest.mark.parametrize("part", ["forward", "sampler", "logits"])
def test_a_failed_sequences_blocks_are_not_found(make: Callable[..., Engine], part: str) -> None:
    """Its keys and values may be what was wrong with it."""
    engine = make(block_size=16)
    run, sample = engine.runner.run, engine.sampler.sample

    def broken_run(chunks: list[Chunk]) -> Any:
        if part == "forward" and any(chunk.start >= 32 for chunk in chunks):
            raise RuntimeError("kernel failed")
        return run(chunks) if part != "logits" else run(chunks) * torch.nan

    def broken_sample(logits: torch.Tensor, sequences: list[Sequence]) -> Any:
        if part == "sampler":
            raise RuntimeError("sampler failed")
        return sample(logits, sequences)

    engine.runner.run, engine.sampler.sample = broken_run, broken_sample  # type: ignore[method-assign]
    engine.scheduler.budget.max_tokens = 32  # a prefill in two steps: the first goes well
    prompt = text_prompt(40)
    number = engine.add(prompt, [], greedy(3))
    assert drain(engine)[number][-1].finish_reason == "error"
    engine.runner.run, engine.sampler.sample = run, sample  # type: ignore[method-assign]
    number = engine.add(prompt, [], greedy(3))
    assert drain(engine)[number][0].found == 0
