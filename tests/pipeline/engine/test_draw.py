from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.draw import FIRST_LOOK, Filters, draw, look, pick
from pipeline.native.compiled import choose


def reference(scores: torch.Tensor, share: float, temperature: float, top_k: int, top_p: float, min_p: float) -> int:
    """The vocabulary is sorted, each filter applied to all of it, the share looked up."""
    values = scores.numpy().astype(np.float64)
    order = np.argsort(-values, kind="stable")
    weights = np.exp((values[order] - values.max()) / temperature)
    weights[weights < min_p] = 0
    if top_k:
        weights[top_k:] = 0
    before = np.cumsum(weights) - weights
    if top_p < 1:
        weights[(before >= top_p * weights.sum()) & (np.arange(len(weights)) > 0)] = 0
    sums = np.cumsum(weights)
    chosen = int(np.searchsorted(sums, share * sums[-1], side="right"))
    return int(order[min(chosen, np.flatnonzero(weights)[-1])])


def nearly(scores: torch.Tensor, share: float, temperature: float, top_k: int, top_p: float, min_p: float) -> set[int]:
    """The reference's token, and those that rounding to float32 may make of it: at the bounds of the share and of what
    is left to draw from."""
    error = 4e-6
    return {
        reference(scores, min(max(share + a, 0), 1), temperature, top_k, top_p * (1 + b), min(min_p * (1 + c), 1))
        for a, b, c in itertools.product((-error, 0, error), repeat=3)
    }


def filters_of(
    share: float, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Filters:
    """Of one row."""
    return Filters([share], [temperature], [top_k], [top_p], [min_p])


def drawn(scores: torch.Tensor, share: float, **filters: Any) -> int:
    """One row's token, by as many looks as it takes."""
    rules = filters_of(share, **filters)
    (token,) = draw(scores[None], rules, look(scores[None], rules).tolist())
    return token


def picked(scores: torch.Tensor, share: float, **filters: Any) -> int:
    """The same by a CPU's kernel."""
    return int(pick(scores[None], filters_of(share, **filters)))


def scores_of(seed: int, size: int, spread: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size).astype(np.float32) * spread)


@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([3, 63, 64, 65, 1025, 5000]),
    spread=st.sampled_from([0.01, 1.0, 3.0, 10.0]),
    share=st.floats(0, 0.999999),
    temperature=st.sampled_from([0.01, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 50, 64, 100, 4000]),
    top_p=st.sampled_from([0.0, 0.1, 0.8, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.001, 0.3, 1.0]),
)
def test_the_token_is_that_of_the_sorted_vocabulary(
    seed: int, size: int, spread: float, share: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    scores = scores_of(seed, size, spread)
    wanted = reference(scores, share, temperature, min(top_k, size), top_p, min_p)
    filters = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    assert drawn(scores, share, **filters) == wanted
    token = picked(scores, share, **filters)
    assert token == wanted or token in nearly(scores, share, temperature, min(top_k, size), top_p, min_p)


@contextmanager
def looked_at() -> Iterator[list[int]]:
    """How many tokens each look brought; -1 for a sort."""
    looks: list[int] = []
    topk, sort = torch.Tensor.topk, torch.Tensor.sort

    def counted(self: torch.Tensor, k: int) -> object:
        looks.append(k)
        return topk(self, k)

    def sorted_(self: torch.Tensor, **how: bool) -> object:
        looks.append(-1)
        return sort(self, **how)

    with mock.patch.object(torch.Tensor, "topk", counted), mock.patch.object(torch.Tensor, "sort", sorted_):
        yield looks


@pytest.mark.parametrize(
    ("spread", "share", "filters", "looks"),
    [
        (10.0, 0.5, {}, [FIRST_LOOK]),
        (3.0, 0.05, {}, [FIRST_LOOK]),
        (0.5, 0.4, {}, [FIRST_LOOK, 16 * FIRST_LOOK, 256 * FIRST_LOOK]),
        (0.01, 0.9999, {}, [FIRST_LOOK, 16 * FIRST_LOOK, 256 * FIRST_LOOK, -1]),
        (3.0, 0.99, {"top_k": 100}, [100]),
        (10.0, 0.99, {"top_p": 0.8}, [FIRST_LOOK]),
        (0.5, 0.4, {"temperature": 0.1}, [FIRST_LOOK]),
    ],
)
def test_the_vocabulary_is_sorted_only_where_nothing_less_will_do(
    spread: float, share: float, filters: dict[str, float], looks: list[int]
) -> None:
    scores = scores_of(1, 49152, spread)
    with looked_at() as seen:
        drawn(scores, share, **filters)
    assert seen == looks


@pytest.mark.parametrize("by", [drawn, picked])
def test_forbidden_tokens_are_never_drawn(by: Callable[[torch.Tensor, float], int]) -> None:
    scores = torch.full((500,), -torch.inf)
    scores[[7, 300]] = torch.tensor([1.0, 0.5])
    for share in (0.0, 0.3, 0.7, 0.999999):
        assert by(scores, share) in (7, 300)
    assert by(scores, 0.0) == 7
    assert by(scores, 0.999999) == 300


def test_equal_tokens_are_drawn_in_the_order_of_their_numbers() -> None:
    assert [picked(torch.zeros(1000), share) for share in (0.0, 0.2501, 0.5001, 0.9999)] == [0, 250, 500, 999]
    assert picked(torch.zeros(1000), 0.5, top_p=0.0) == 0
    assert picked(torch.zeros(1000), 0.9999, top_p=0.5) == 499, "half of the whole is reached exactly"
    scores = torch.zeros(1000)
    scores[500:] = torch.tensor(3.0).log()  # three quarters of the whole
    assert [picked(scores, share) for share in (0.0001, 0.7501, 0.9999)] == [500, 0, 499]


def test_far_tokens_count_when_they_are_many() -> None:
    """A best token and many far ones that weigh more together."""
    scores = torch.full((100_000,), -9.0)
    scores[7] = 0.0
    mass = 1 + 99_999 * np.exp(-9.0)
    assert picked(scores, 0.999 / mass) == 7
    assert picked(scores, 1.00005 / mass) == 0
    assert picked(scores, 0.9999999) == 99_999
    assert picked(scores, 0.9999999, top_k=10) == 9
    assert picked(scores, 0.9999999, top_p=0.99 / mass) == 7
    assert picked(scores, 0.9999999, min_p=0.001) == 7


def test_the_kernel_is_compiled_once() -> None:
    """For one row and several, cut out of wider ones, and numbers that are whole."""
    for scores in (torch.zeros(1, 70), torch.zeros(3, 70), torch.zeros(3, 96)[:, :70]):
        count = len(scores)
        pick(scores, Filters([0] * count, [1] * count, [0] * count, [1] * count, [0] * count))
    assert len(choose.signatures) == 1


def test_a_limit_that_is_no_machine_number() -> None:
    assert picked(torch.zeros(1000), 0.9999, top_k=10**20) == 999


def test_rows_that_are_no_numbers_harm_nobody() -> None:
    good = scores_of(3, 4000, 2.0)
    rows = torch.stack([good, torch.full((4000,), torch.nan), good, torch.full((4000,), -torch.inf), good, good])
    rows[2, 5], rows[4, 6] = torch.inf, torch.nan
    filters = Filters([0.4] * 6, [0.7] * 6, [0] * 6, [0.9] * 6, [0.0] * 6)
    tokens = pick(rows, filters).tolist()
    assert tokens[0] == tokens[5] == picked(good, 0.4, temperature=0.7, top_p=0.9)


def test_a_filter_may_end_among_tens_of_thousands_of_neighbours() -> None:
    scores = -20 - torch.linspace(0, 0.01, 100_000)[torch.randperm(100_000, generator=torch.Generator().manual_seed(1))]
    scores[:3] = 0.0
    best = scores.sort(descending=True, stable=True).indices
    assert picked(scores, 0.99999, top_k=1000) == best[2]
    assert picked(scores, 0.9999999999999, top_k=1000) == best[999]
    assert picked(scores, 0.9999999, temperature=20.0, top_k=1000) == best[999]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.999999),
            st.sampled_from([0.3, 1.0, 1.5]),
            st.sampled_from([0, 1, 50, 64, 100, 4000]),
            st.sampled_from([0.0, 0.1, 0.8, 0.999, 1.0]),
            st.sampled_from([0.0, 0.001, 0.3]),
            st.sampled_from([0.01, 1.0, 10.0]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 10_000),
)
def test_rows_of_every_kind_in_one_look(rows: list[tuple[float, float, int, float, float, float]], seed: int) -> None:
    scores = torch.stack([scores_of(seed + i, 3000, spread) for i, (*_, spread) in enumerate(rows)])
    filters = Filters(*(list(column) for column in list(zip(*rows, strict=True))[:5]))
    together = draw(scores, filters, look(scores, filters).tolist())
    wanted = [
        reference(row, share, temperature, min(top_k, 3000), top_p, min_p)
        for row, (share, temperature, top_k, top_p, min_p, _) in zip(scores, rows, strict=True)
    ]
    assert together == wanted
    for token, best, row, (share, temperature, top_k, top_p, min_p, _) in zip(
        pick(scores, filters).tolist(), wanted, scores, rows, strict=True
    ):
        assert token == best or token in nearly(row, share, temperature, min(top_k, 3000), top_p, min_p)
