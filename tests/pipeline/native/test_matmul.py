from __future__ import annotations

import numpy as np
import pytest

from pipeline.native.matmul import DEPTH, TILE_ROWS, multiply
from pipeline.native.packing import Packed, Storage
from pipeline.native.tile import LANES

from .reference import STORAGES, UNIT, multiplied, packed, scales, stored

ROWS, OUTPUTS, PANELS = 100, 7 * LANES - 5, 7
"""7 panels: 4 and 3 ones for one row, three pairs and one for two or three."""

DEPTHS = (70, DEPTH, DEPTH + 1, 2 * DEPTH + 75)


def inputs(depth: int, storage: Storage) -> tuple[np.ndarray, Packed]:
    rng = np.random.default_rng(depth)
    weights = rng.standard_normal((OUTPUTS, depth), np.float32)
    return rng.standard_normal((ROWS, depth), np.float32), packed(weights, storage)


def blank() -> np.ndarray:
    return np.full((ROWS, PANELS * LANES), np.nan, np.float32)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_close_to_the_product(depth: int, storage: Storage) -> None:
    """Within what `depth` roundings of each sum can cost (Higham, 2002, section 3.1)."""
    x, w = inputs(depth, storage)
    out = blank()
    multiply(x, ROWS, w.values, w.scales, out, 0, PANELS, False)
    weights = stored(w).astype(np.float64) * scales(w)
    error = np.abs(out - x.astype(np.float64) @ weights.T)
    assert (error <= (depth + 2) * UNIT * (np.abs(x).astype(np.float64) @ np.abs(weights).T)).all()
    assert not out[:, OUTPUTS:].any()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_row_does_not_depend_on_the_others(depth: int, storage: Storage) -> None:
    """To the last bit, whatever their number; rows that are not asked for stay as they are."""
    x, w = inputs(depth, storage)
    wanted = multiplied(x, w, np.zeros((ROWS, PANELS * LANES), np.float32))
    assert 4 * TILE_ROWS < 40
    for rows in (*range(1, 41), ROWS):
        out = blank()
        multiply(x, rows, w.values, w.scales, out, 0, PANELS, False)
        np.testing.assert_array_equal(out[:rows], wanted[:rows], f"{rows} rows")
        assert np.isnan(out[rows:]).all()
    for row in (17, 99):
        out = blank()
        multiply(x[row : row + 1], 1, w.values, w.scales, out, 0, PANELS, False)
        np.testing.assert_array_equal(out[0], wanted[row])


@pytest.mark.parametrize("storage", STORAGES)
def test_some_panels_only(storage: Storage) -> None:
    x, w = inputs(600, storage)
    wanted = multiplied(x, w, np.zeros((ROWS, PANELS * LANES), np.float32))
    for first, last in ((0, 0), (0, 1), (2, 7), (1, 6), (6, 7), (3, 3)):
        for rows in (1, 2, 3, 9, 50):
            out = blank()
            multiply(x, rows, w.values, w.scales, out, first, last, False)
            columns = slice(first * LANES, last * LANES)
            np.testing.assert_array_equal(out[:rows, columns], wanted[:rows, columns])
            out[:rows, columns] = np.nan
            assert np.isnan(out).all()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("depth", [70, 600])
def test_that_much_more(depth: int, storage: Storage) -> None:
    x, w = inputs(depth, storage)
    before = np.random.default_rng(9).standard_normal((ROWS, PANELS * LANES), np.float32)
    wanted = multiplied(x, w, before)
    for rows in (1, 2, 3, 5, 8, 33, ROWS):
        out = before.copy()
        multiply(x, rows, w.values, w.scales, out, 0, PANELS, True)
        np.testing.assert_array_equal(out[:rows], wanted[:rows])
        np.testing.assert_array_equal(out[rows:], before[rows:])


@pytest.mark.parametrize("storage", STORAGES)
def test_no_rows(storage: Storage) -> None:
    x, w = inputs(70, storage)
    out = blank()
    multiply(x, 0, w.values, w.scales, out, 0, PANELS, False)
    assert np.isnan(out).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_a_row_that_is_not_finite_is_alone_with_it(storage: Storage) -> None:
    x, w = inputs(600, storage)
    wanted = multiplied(x, w, np.zeros((ROWS, PANELS * LANES), np.float32))
    x[4, 550], x[40, 0] = np.nan, np.inf
    out = blank()
    multiply(x, ROWS, w.values, w.scales, out, 0, PANELS, False)
    assert np.isnan(out[4, :OUTPUTS]).all()
    assert not np.isfinite(out[40, :OUTPUTS]).any()
    others = [row for row in range(ROWS) if row not in (4, 40)]
    np.testing.assert_array_equal(out[others], wanted[others])
