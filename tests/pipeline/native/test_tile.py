from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from pipeline.native.packing import Storage
from pipeline.native.tile import LANES, tile

from .reference import STORAGES, chain, packed, stored

MOST = {(4, 1): 4, (2, 1): 8, (2, 2): 8, (2, 4): 8, (1, 1): 8, (1, 2): 8, (1, 4): 8}
"""Rows at most of all tiles that the kernels are made of, whatever the processor, by their panels and parts."""

VARIANTS = [(rows, panels, parts) for (panels, parts), most in MOST.items() for rows in range(1, most + 1)]

DEPTHS = (0, 1, 3, 4, 5, 63, 130)

AHEAD = 2**40
"""Nothing lies there: what is only asked for in advance may be anywhere."""


def compiled(panels: int, parts: int) -> Any:
    most = MOST[panels, parts]

    @numba.njit
    def compute(rows, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add):  # type: ignore
        tile(most, panels, parts, rows, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)

    return compute


COMPILED = {variant: compiled(*variant) for variant in MOST}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("rows", "panels", "parts"), VARIANTS)
def test_a_chain_of_fused_multiply_adds(rows: int, panels: int, parts: int, storage: Storage) -> None:
    """To the last bit, from and to the middle of larger arrays, around which everything stays as it was."""
    rng = np.random.default_rng(rows * 10 + panels)
    width = panels * LANES
    for depth in DEPTHS:
        w = packed(rng.standard_normal((width, depth + 1), np.float32), storage)  # one more than is multiplied
        weights, panel = stored(w)[:, :depth], w.values[:, :depth]
        x = rng.standard_normal((rows, depth), np.float32)
        # In front of, between and behind what is meant: numbers that would show.
        x_at, x_stride, w_at, out_at, out_stride = 5, depth + 3, 7, 9, width + 5
        panel_stride = depth * LANES + 11
        around_x = np.full(x_at + rows * x_stride, np.nan, np.float32)
        around_w = np.full(w_at + panels * panel_stride, {"float32": np.nan, "bfloat16": 0x7FC0, "int8": 127}[storage])
        around_w = around_w.astype(w.values.dtype)
        for r in range(rows):
            around_x[x_at + r * x_stride :][:depth] = x[r]
        for p in range(panels):
            around_w[w_at + p * panel_stride :][: depth * LANES] = panel[p].ravel()
        for add, ahead in ((False, AHEAD), (True, AHEAD), (True, 0)):
            out = rng.standard_normal(out_at + rows * out_stride + 3, np.float32)
            wanted = out.copy()
            places = [slice(out_at + r * out_stride, out_at + r * out_stride + width) for r in range(rows)]
            before = np.stack([out[place] for place in places])
            for place, row in zip(places, chain(x, weights, before if add else np.zeros_like(before)), strict=True):
                wanted[place] = row
            if not add:
                for place in places:
                    out[place] = np.nan
            COMPILED[panels, parts](
                rows,
                around_x,
                x_at,
                x_stride,
                around_w,
                w_at,
                panel_stride,
                ahead,
                depth,
                out,
                out_at,
                out_stride,
                add,
            )
            np.testing.assert_array_equal(out, wanted, f"depth {depth}, add {add}")


def test_a_row_that_is_not_finite_is_alone_with_it() -> None:
    x, w = np.ones((6, 8), np.float32), packed(np.ones((LANES, 8), np.float32), "float32")
    x[2, 3], x[4, 0] = np.nan, np.inf
    out = np.zeros((6, LANES), np.float32)
    COMPILED[1, 1](6, x.ravel(), 0, 8, w.values.ravel(), 0, 0, 0, 8, out.ravel(), 0, LANES, False)
    for row, value in enumerate([8, 8, np.nan, 8, np.inf, 8]):
        np.testing.assert_array_equal(out[row], np.full(LANES, value, np.float32))


def test_the_size_is_a_constant() -> None:
    @numba.njit
    def any_size(panels, x, out):  # type: ignore
        tile(1, panels, 1, 1, x, 0, 1, x, 0, 0, 0, 1, out, 0, 16, False)

    with pytest.raises(TypingError, match="most, panels and parts must be constants"):
        any_size(2, np.zeros(16, np.float32), np.zeros(32, np.float32))


def test_weights_of_another_kind() -> None:
    @numba.njit
    def doubles(x, weights, out):  # type: ignore
        tile(1, 1, 1, 1, x, 0, 1, weights, 0, 0, 0, 1, out, 0, 16, False)

    with pytest.raises(TypingError, match="weights of float64 can't be multiplied"):
        doubles(np.zeros(16, np.float32), np.zeros(16), np.zeros(16, np.float32))
