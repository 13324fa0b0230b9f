"""What one sequence has computed is found by the next that begins so; not where that is off, nor after a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.engine.engine import Engine
from pipeline.engine.scheduler import Chunk
from tests.pipeline.helpers import drain, greedy, text_prompt

from .test_isolation import break_sampler, explode_when, poison


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


def spoil(chunks: list[Chunk], run: Callable[..., Any]) -> Any:
    return run(chunks) * torch.nan


@pytest.mark.parametrize(
    "break_first",
    [
        lambda engine: poison(engine, 0, explode_when(lambda chunk: chunk.start >= 32)),
        lambda engine: poison(engine, 0, spoil),
        lambda engine: break_sampler(engine, lambda sequence: sequence.id == 0),
    ],
    ids=["forward", "logits", "sampler"],
)
def test_a_failed_sequences_blocks_are_not_found(
    make: Callable[..., Engine], break_first: Callable[[Engine], None]
) -> None:
    """Its keys and values may be what was wrong with it."""
    engine = make(block_size=16, max_batch_tokens=32)  # a prefill in two steps
    break_first(engine)
    prompt = text_prompt(40)
    assert engine.add(prompt, [], greedy(3)) == 0
    assert drain(engine)[0][-1].finish_reason == "error"
    assert engine.add(prompt, [], greedy(3)) == 1
    assert drain(engine)[1][0].found == 0
