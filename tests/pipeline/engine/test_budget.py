from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.budget import FIRST_CHUNK, SMALLEST_CHUNK, SMALLEST_SHARE, TokenBudget


def learnt(step_seconds: float | None, decode: float = 0.02, token: float = 0.001) -> TokenBudget:
    budget = TokenBudget(512, step_seconds)
    for _ in range(40):
        budget.observe(4, 0, decode)
        budget.observe(4, 50, decode + 50 * token)
    return budget


def test_without_answers_under_way_a_prompt_may_have_the_whole_step() -> None:
    assert learnt(0.03).prefill(0) == 512


def test_without_a_limit_of_time_it_gets_what_is_left() -> None:
    assert TokenBudget(512).prefill(12) == 500


def test_the_limit_is_kept_by_what_was_measured() -> None:
    assert learnt(0.05).prefill(4) == pytest.approx(30, abs=1)
    assert learnt(0.1).prefill(4) == pytest.approx(80, abs=1)


def test_prompts_advance_when_decodes_alone_take_too_long() -> None:
    assert learnt(0.01, token=0.0002).prefill(4) == pytest.approx(SMALLEST_SHARE * 100, abs=1)
    assert learnt(0.01, token=1.0).prefill(4) == SMALLEST_CHUNK


def test_the_number_of_tokens_stays_a_limit() -> None:
    assert learnt(10.0).prefill(4) == 508


def test_to_begin_with_a_small_chunk_is_measured() -> None:
    budget = TokenBudget(512, 0.1)
    assert budget.prefill(4) == FIRST_CHUNK
    budget.observe(0, 100, 0.1)  # a prompt alone
    assert budget.prefill(4) == FIRST_CHUNK, "what decodes take isn't known yet"
    budget.observe(4, 16, 0.036)
    assert budget.prefill(4) == pytest.approx(80, abs=1)


def test_a_single_token_tells_nothing_of_what_more_cost() -> None:
    budget = learnt(0.1)
    before = budget.prefill(4)
    budget.observe(0, 1, 0.026)  # the last token of a prompt that was found in the cache
    budget.observe(4, 1, 0.05)
    assert budget.prefill(4) == before


def test_it_follows_a_change_within_some_steps() -> None:
    budget = learnt(0.05)
    for _ in range(20):
        budget.observe(4, 30, 0.02 + 30 * 0.003)
    assert budget.prefill(4) == pytest.approx(10, abs=1)


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.integers(0, 32), st.integers(0, 512), st.floats(0, 10)), max_size=20),
    st.none() | st.floats(1e-3, 1),
)
def test_whatever_was_measured_prompts_get_something(
    decodes: int, steps: list[tuple[int, int, float]], limit: float | None
) -> None:
    budget = TokenBudget(64, limit)
    for running, prefill, seconds in steps:
        budget.observe(running, prefill, seconds)
    assert min(1, 64 - decodes) <= budget.prefill(decodes) <= 64 - decodes
    assert budget.prefill(0) == 64
