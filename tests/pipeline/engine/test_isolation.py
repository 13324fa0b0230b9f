"""One bad sequence ends with an error; its neighbours' tokens stay what they are alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.engine.engine import Engine
from pipeline.engine.memory import CacheBudget
from pipeline.engine.scheduler import Chunk
from pipeline.engine.sequence import Sequence
from pipeline.types import MediaSpan, Prompt
from tests.pipeline.helpers import alone, drain, greedy, text_prompt, tokens


def poison(engine: Engine, victim: int, change: Callable[[list[Chunk], Callable[..., Any]], Any]) -> None:
    """Lets `change` stand in for the runner in each step that `victim` takes part in."""
    original = engine.runner.run

    def run(chunks: list[Chunk]) -> Any:
        if any(chunk.sequence.id == victim for chunk in chunks):
            return change(chunks, original)
        return original(chunks)

    engine.runner.run = run  # type: ignore[method-assign]


def explode_when(wrong: Callable[[Chunk], bool]) -> Callable[[list[Chunk], Callable[..., Any]], Any]:
    """For `poison`: the forward fails on such a chunk."""

    def explode(chunks: list[Chunk], run: Callable[..., Any]) -> Any:
        if any(wrong(chunk) for chunk in chunks):
            raise RuntimeError("kernel failed")
        return run(chunks)

    return explode


def break_sampler(engine: Engine, wrong: Callable[[Sequence], bool]) -> None:
    """It fails wherever such a sequence is among those to sample."""
    original = engine.sampler.sample

    def sample(logits: torch.Tensor, sequences: list[Sequence]) -> Any:
        if any(wrong(sequence) for sequence in sequences):
            raise RuntimeError("sampler failed")
        return original(logits, sequences)

    engine.sampler.sample = sample  # type: ignore[method-assign]


def add_three(engine: Engine) -> None:
    for i in range(3):
        engine.add(text_prompt(8 + i, seed=i), [], greedy(12))


def check(make: Callable[..., Engine], engine: Engine, victim: int = 1) -> str:
    outputs = drain(engine)
    for i in range(3):
        if i != victim:
            assert tokens(outputs[i]) == alone(make, text_prompt(8 + i, seed=i), greedy(12))
    last = outputs[victim][-1]
    assert (last.token_id, last.finish_reason) == (None, "error")
    assert last.error
    return last.error


@pytest.mark.parametrize("after", [0, 4])
def test_logits_that_are_no_numbers(make: Callable[..., Engine], after: int) -> None:
    engine = make()
    add_three(engine)

    def spoil(chunks: list[Chunk], run: Callable[..., Any]) -> Any:
        logits = run(chunks).clone()
        row = [c.sequence.id for c in chunks if c.samples].index(1)
        if len(chunks[row].sequence.output) >= after:
            logits[row, 3] = torch.nan
        return logits

    poison(engine, 1, spoil)
    assert "finite" in check(make, engine)


def test_embeds_that_are_no_numbers(make: Callable[..., Engine]) -> None:
    engine = make()
    add_three(engine)
    bad = engine.add(Prompt([0] * 4 + [20], (MediaSpan(0, 4, 0, 0),)), [torch.full((4, 256), torch.nan)], greedy(5))
    outputs = drain(engine)
    assert outputs[bad][-1].finish_reason == "error"
    for i in range(3):
        assert tokens(outputs[i]) == alone(make, text_prompt(8 + i, seed=i), greedy(12))


@pytest.mark.parametrize("after", [0, 4])
def test_an_exception_in_the_forward(make: Callable[..., Engine], after: int) -> None:
    engine = make()
    add_three(engine)
    poison(engine, 1, explode_when(lambda c: c.sequence.id == 1 and len(c.sequence.output) >= after))
    error = check(make, engine)
    assert "kernel" not in error, "our inner words stay inside"


def test_an_exception_in_the_midst_of_a_prefill(make: Callable[..., Engine]) -> None:
    engine = make(max_batch_tokens=32)
    add_three(engine)
    long = engine.add(text_prompt(200, seed=9), [], greedy(5))
    poison(engine, long, explode_when(lambda c: c.sequence.id == long and c.start > 60))
    outputs = drain(engine)
    assert outputs[long][-1].finish_reason == "error"
    for i in range(3):
        assert tokens(outputs[i]) == alone(make, text_prompt(8 + i, seed=i), greedy(12))


@pytest.mark.parametrize("after", [0, 4])
def test_an_exception_in_the_sampler(make: Callable[..., Engine], after: int) -> None:
    """Neighbours that were sampled before it in the same step keep that token."""
    engine = make()
    add_three(engine)
    break_sampler(engine, lambda s: s.id == 1 and len(s.output) >= after)
    check(make, engine)


def test_an_exception_in_the_sampler_beside_a_neighbour_at_its_end(make: Callable[..., Engine]) -> None:
    engine = make()
    short = engine.add(text_prompt(8), [], greedy(1))
    bad = engine.add(text_prompt(9), [], greedy(5))
    break_sampler(engine, lambda s: s.id == bad)
    outputs = drain(engine)
    assert [o.finish_reason for o in outputs[short]] == ["length"]
    assert [o.finish_reason for o in outputs[bad]] == ["error"]


def test_token_ids_outside_the_vocabulary(make: Callable[..., Engine]) -> None:
    engine = make()
    neighbour = engine.add(text_prompt(8), [], greedy(12))
    bad = engine.add(Prompt([5, 10**6]), [], greedy(5))
    outputs = drain(engine)
    assert outputs[bad][-1].finish_reason == "error"
    assert tokens(outputs[neighbour]) == alone(make, text_prompt(8), greedy(12))


def test_blocks_of_the_failed_are_clean_for_the_next(make: Callable[..., Engine]) -> None:
    """NaN that one sequence wrote into the cache does not reach whoever gets its blocks."""
    engine = make(kv_cache=CacheBudget(2))
    engine.add(Prompt([0] * 20, (MediaSpan(0, 20, 0, 0),)), [torch.full((20, 256), torch.nan)], greedy(5))
    assert drain(engine)[0][-1].finish_reason == "error"
    engine.add(text_prompt(8), [], greedy(12))
    assert tokens(drain(engine)[1]) == alone(make, text_prompt(8), greedy(12))
