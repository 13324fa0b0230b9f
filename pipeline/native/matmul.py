"""Matrix products with packed weights: `multiply` for rows of activations, `product` for whatever has panels.

A row's result is the same to the last bit whichever rows are multiplied with it (see `tile`).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .llvm import WIDE_REGISTERS, fma
from .packing import GROUP
from .tile import LANES, tile

TILE_ROWS, ROWS_OF_TWO, ROWS_OF_FOUR = (8, 8, 4) if WIDE_REGISTERS else (6, 3, 1)
"""Rows of a tile at most; of one of two panels; of one of four. What is summed up stays in registers: AVX has 16, of
half a panel each (6 rows and a panel: 12 sums, 2 columns, a factor); AVX-512 32, of a whole one (8 rows and two: 16 and
2). Two products begin in each cycle and take four: with fewer than 8 sums under way they wait for each other."""

AHEAD = 4096
"""Bytes between what is multiplied and what is asked for, where weights are used once. Of 8 rows over a depth of 1,536
two threads multiplied 79 GFLOP/s when the panel after the next was asked for, 92 and 96 with 2 and 4 KiB (Intel Emerald
Rapids)."""

DEPTH = 768
"""A tile's rows over this depth stay in the first-level cache: 8 * 768 * 4 bytes = 24 KiB."""

PIECE = 4
"""Panels that are multiplied together at most."""

ZERO = np.float32(0)

START, NO, YES = np.int64(0), np.bool_(False), np.bool_(True)
"""Arguments that aren't Python's own: of each of those numba makes a type, and compiles a function once more for it."""


@numba.njit(nogil=True, error_model="numpy")
def multiply(x: Any, rows: int, weights: Any, scales: Any, out: Any, first: int, last: int, add: bool) -> None:
    """out[:rows, 16 * first : 16 * last] = x[:rows] @ those panels of weights; with `add`, that much more.

    x [at least rows, depth], weights and scales as in `Packed`, out [at least rows, 16 * panels]; contiguous.
    """
    if scales.size:
        _multiply_scaled(x, rows, weights, scales, out, first, last, add)
        return
    depth, panel, columns = weights.shape[1], weights.shape[1] * LANES, out.shape[1]
    ahead = _ahead(rows, weights)
    step = DEPTH if rows > TILE_ROWS else depth  # panels that are read once are read from end to end
    for k in range(0, depth, step):
        some, at = min(depth - k, step), first * panel + k * LANES
        product(
            x, k, depth, rows, weights, at, panel, last - first, ahead, some, out, first * LANES, columns, add or k > 0
        )


@numba.njit(nogil=True, error_model="numpy")
def _multiply_scaled(x: Any, rows: int, weights: Any, scales: Any, out: Any, first: int, last: int, add: bool) -> None:
    """Group after group: its product with the integers, times their scales."""
    depth, panel = weights.shape[1], weights.shape[1] * LANES
    part, ahead = np.empty((rows, PIECE * LANES), np.float32), _ahead(rows, weights)
    for p in range(first, last, PIECE):
        panels = min(PIECE, last - p)
        for g in range(scales.shape[1]):
            k = g * GROUP
            some, at = min(depth - k, GROUP), p * panel + k * LANES
            product(x, k, depth, rows, weights, at, panel, panels, ahead, some, part, START, part.shape[1], NO)
            for r in range(rows):
                for i in range(panels):
                    for c in range(LANES):
                        column = (p + i) * LANES + c
                        before = out[r, column] if add or g else ZERO
                        out[r, column] = fma(part[r, i * LANES + c], scales[p + i, g, c], before)


@numba.njit(nogil=True)
def _ahead(rows: int, weights: Any) -> int:
    """Elements between what is multiplied and what is asked for: with several tiles of rows the next panels."""
    return AHEAD // weights.itemsize if rows <= TILE_ROWS else panels_of_tile(rows) * weights.shape[1] * LANES


@numba.njit(nogil=True)
def panels_of_tile(rows: int) -> int:
    """How many panels a tile has."""
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    most = (rows + tiles - 1) // tiles
    return 4 if most <= ROWS_OF_FOUR else 2 if most <= ROWS_OF_TWO else 1


@numba.njit(nogil=True)
def panels_of_piece(rows: int, weights: Any) -> int:
    """How many panels of `Packed` weights are a piece of work: few, so that a team ends together."""
    return PIECE if weights.scales.size else panels_of_tile(rows)


@numba.njit(nogil=True, error_model="numpy")
def product(
    x: Any,
    x_at: int,
    x_stride: int,
    rows: int,
    weights: Any,
    weights_at: int,
    panel_stride: int,
    panels: int,
    ahead: int,
    depth: int,
    out: Any,
    out_at: int,
    out_stride: int,
    add: bool,
) -> None:
    """`tile` for any number of rows and panels.

    Panels stay near while all rows are multiplied with them. Each tile of rows asks for its part of the panels that
    come `ahead` elements later, so that memory and products are at work at the same time.
    """
    tiles, most = (rows + TILE_ROWS - 1) // TILE_ROWS, panels_of_tile(rows)
    parts = 4 if tiles >= 4 else 2 if tiles >= 2 else 1
    stride, p = panel_stride, 0
    while p < panels:
        some, row = most if p + most <= panels else 1, 0
        for t in range(tiles):
            count = (rows - row + tiles - t - 1) // (tiles - t)  # of 9 rows 5 and 4: one alone would wait for its sums
            a, w, o = x_at + row * x_stride, weights_at + p * stride, out_at + row * out_stride + p * LANES
            s = ahead + depth * LANES * t // parts if t < parts else 0
            if some == 4:
                tile(ROWS_OF_FOUR, 4, 1, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            elif some == 2 and parts == 1:
                tile(ROWS_OF_TWO, 2, 1, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            elif some == 2 and parts == 2:
                tile(ROWS_OF_TWO, 2, 2, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            elif some == 2:
                tile(ROWS_OF_TWO, 2, 4, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            elif parts == 1:
                tile(TILE_ROWS, 1, 1, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            elif parts == 2:
                tile(TILE_ROWS, 1, 2, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            else:
                tile(TILE_ROWS, 1, 4, count, x, a, x_stride, weights, w, stride, s, depth, out, o, out_stride, add)
            row += count
        p += some
