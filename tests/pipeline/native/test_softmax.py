from __future__ import annotations

import numba
import numpy as np
import pytest

from pipeline.native.softmax import soften

WIDTH = 48


@numba.njit
def compute(scores, at, size, seen, sums, sums_at, width, kept, row):  # type: ignore
    soften(scores, at, size, seen, sums, sums_at, width, kept, row)


def softened(
    scores: np.ndarray, seen: int, sums: np.ndarray, kept: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In the middle of larger arrays, around which everything must stay as it was."""
    size = len(scores)
    around = [np.full((3, n), 5, np.float32) for n in (size, WIDTH, 2)]
    for array, row in zip(around, (scores, sums, np.array(kept)), strict=True):
        array[1] = row
    compute(around[0], size, size, seen, around[1], WIDTH, WIDTH, around[2], 1)
    for array in around:
        assert (array[[0, 2]] == 5).all()
    return around[0][1], around[1][1], around[2][1]


def wanted(
    scores: np.ndarray, seen: int, sums: np.ndarray, kept: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In float64."""
    some = np.where(np.arange(len(scores)) < seen, scores.astype(np.float64), -np.inf)
    top = max(kept[0], some.max())
    weights = np.exp(some - top)
    shrink = np.exp(kept[0] - top)
    return weights, sums * shrink, np.array([top, kept[1] * shrink + weights.sum()])


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("before", [(-np.inf, 0.0), (-3.0, 7.5), (40.0, 2.0)])
def test_weights_sums_and_what_is_kept(size: int, before: tuple[float, float]) -> None:
    rng = np.random.default_rng(size)
    for seen in (1, 2, 15, 16, size - 1, size):
        scores = (10 * rng.standard_normal(size)).astype(np.float32)
        sums = rng.standard_normal(WIDTH).astype(np.float32)
        given = scores.copy(), seen, sums.copy(), before
        for found, right in zip(softened(*given), wanted(*given), strict=True):
            np.testing.assert_allclose(found, right, rtol=2e-6, atol=1e-37)


def test_weights_behind_what_is_seen_are_zero() -> None:
    scores = np.full(64, 1e30, np.float32)
    scores[:5] = -2.0
    weights, _, kept = softened(scores, 5, np.ones(WIDTH, np.float32), (-np.inf, 0.0))
    np.testing.assert_array_equal(weights, [1.0] * 5 + [0.0] * 59)
    np.testing.assert_array_equal(kept, [-2.0, 5.0])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_scores_of_any_size(scale: float) -> None:
    scores = (scale * np.linspace(-1, 1, 32)).astype(np.float32)
    weights, sums, kept = softened(scores, 32, np.zeros(WIDTH, np.float32), (-np.inf, 0.0))
    assert np.isfinite(weights).all()
    assert np.isfinite(sums).all()
    assert weights[-1] == 1.0
    assert kept[0] == scores[-1]


def test_a_score_that_is_no_number_spoils_its_query_alone() -> None:
    scores = np.zeros(32, np.float32)
    scores[3] = np.nan
    weights, _, kept = softened(scores, 32, np.zeros(WIDTH, np.float32), (-np.inf, 0.0))
    assert np.isnan(weights[3])
    assert np.isnan(kept[1])


def test_the_order_of_sums_is_that_of_the_lanes_alone() -> None:
    """The same scores in a longer block, unseen behind them, give the same bits."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(128).astype(np.float32)
    sums = rng.standard_normal(WIDTH).astype(np.float32)
    short = softened(scores[:32].copy(), 32, sums.copy(), (0.5, 1.5))
    long = softened(scores.copy(), 32, sums.copy(), (0.5, 1.5))
    np.testing.assert_array_equal(short[0], long[0][:32])
    np.testing.assert_array_equal(short[1], long[1])
    np.testing.assert_array_equal(short[2], long[2])
