from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.draw import FIRST_LOOK, GROUP, Filters, draw, largest, look


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


def drawn(
    scores: torch.Tensor,
    share: float,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> int:
    """One row's token, by as many looks as it takes."""
    filters = Filters([share], [temperature], [top_k], [top_p], [min_p])
    (token,) = draw(scores[None], filters, look(scores[None], filters).tolist())
    return token


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
    assert drawn(scores, share, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p) == wanted


@given(
    rows=st.integers(1, 3),
    size=st.sampled_from([3, 1000, 1024, 5003]),
    count=st.integers(1, 70),
    few=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_the_largest_are_found_in_groups(rows: int, size: int, count: int, few: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.standard_normal((rows, size)).astype(np.float32))
    if few:  # equal ones, and forbidden ones
        scores = (scores.round() - 1).masked_fill(scores > 1, -torch.inf)
    count = min(count, size)
    values, places = largest(scores, count)
    assert torch.equal(values, scores.topk(count).values)
    assert torch.equal(scores.gather(-1, places), values)
    assert all(len(set(row)) == count for row in places.tolist())


def test_a_vocabulary_is_not_searched_as_a_whole() -> None:
    sizes: list[int] = []
    topk = torch.Tensor.topk

    def counted(self: torch.Tensor, k: int) -> object:
        sizes.append(self.shape[-1])
        return topk(self, k)

    with mock.patch.object(torch.Tensor, "topk", counted):
        largest(torch.randn(2, 49153), 64)
    assert sizes == [49152 // GROUP, 64 * GROUP + 1]


@contextmanager
def looked_at() -> Iterator[list[int]]:
    """How many tokens each look brought; -1 for a sort."""
    looks: list[int] = []
    sort = torch.Tensor.sort

    def counted(scores: torch.Tensor, count: int) -> object:
        looks.append(count)
        return largest(scores, count)

    def sorted_(self: torch.Tensor, **how: bool) -> object:
        looks.append(-1)
        return sort(self, **how)

    with mock.patch("pipeline.engine.draw.largest", counted), mock.patch.object(torch.Tensor, "sort", sorted_):
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
        drawn(scores, share, **filters)  # type: ignore[arg-type]
    assert seen == looks


def test_forbidden_tokens_are_never_drawn() -> None:
    scores = torch.full((500,), -torch.inf)
    scores[[7, 300]] = torch.tensor([1.0, 0.5])
    for share in (0.0, 0.3, 0.7, 0.999999):
        assert drawn(scores, share) in (7, 300)
    assert drawn(scores, 0.0) == 7
    assert drawn(scores, 0.999999) == 300


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
