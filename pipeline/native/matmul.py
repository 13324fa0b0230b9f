"""Matrix products with packed weights: `multiply` for rows of activations, `product` for whatever has panels.

A row's result is the same to the last bit whichever rows are multiplied with it (see `tile`).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .llvm import fma
from .packing import GROUP
from .tile import LANES, tile

TILE_ROWS = 6
"""Rows of a tile: 6 * 2 sums, 2 columns and a factor are 15 of AVX's 16 registers."""

DEPTH = 512
"""A tile's rows over this depth stay in the first-level cache: 6 * 512 * 4 bytes = 12 KiB."""

MANY_ROWS = 32
"""More rows than this come from beyond the second-level cache: four panels are multiplied with each tile of them."""

ZERO = np.float32(0)


@numba.njit(nogil=True, error_model="numpy")
def multiply(x: Any, rows: int, weights: Any, scales: Any, out: Any, first: int, last: int, add: bool) -> None:
    """out[:rows, 16 * first : 16 * last] = x[:rows] @ those panels of weights; with `add`, that much more.

    x [at least rows, depth], weights and scales as in `Packed`, out [at least rows, 16 * panels]; contiguous.
    """
    if scales.size:
        _multiply_scaled(x, rows, weights, scales, out, first, last, add)
        return
    depth, panel, columns = weights.shape[1], weights.shape[1] * LANES, out.shape[1]
    for k in range(0, depth, DEPTH):
        some, at = min(depth - k, DEPTH), first * panel + k * LANES
        product(
            x, k, depth, rows, weights, at, panel, last - first, panel, some, out, first * LANES, columns, add or k > 0
        )


@numba.njit(nogil=True, error_model="numpy")
def _multiply_scaled(x: Any, rows: int, weights: Any, scales: Any, out: Any, first: int, last: int, add: bool) -> None:
    """Group after group: its product with the integers, times their scales."""
    depth, panel = weights.shape[1], weights.shape[1] * LANES
    together = 4 if rows <= 3 else 1
    part = np.empty((rows, together * LANES), np.float32)
    for p in range(first, last, together):
        panels = min(together, last - p)
        for g in range(scales.shape[1]):
            k = g * GROUP
            some, at = min(depth - k, GROUP), p * panel + k * LANES
            product(x, k, depth, rows, weights, at, panel, panels, panel, some, part, 0, part.shape[1], False)
            for r in range(rows):
                for i in range(panels):
                    for c in range(LANES):
                        column = (p + i) * LANES + c
                        before = out[r, column] if add or g else ZERO
                        out[r, column] = fma(part[r, i * LANES + c], scales[p + i, g, c], before)


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
    """`tile` for any number of rows and panels. Few rows leave registers for several panels: more sums under way, and
    more streams from memory, of which one alone is slower than the memory."""
    stride, done = panel_stride, 0
    while done + 4 <= panels and rows == 1:
        w, o = weights_at + done * stride, out_at + done * LANES
        tile(1, 4, x, x_at, x_stride, weights, w, stride, 0, depth, out, o, out_stride, add)
        done += 4
    while done + 2 <= panels and 2 <= rows <= 3:
        w, o = weights_at + done * stride, out_at + done * LANES
        if rows == 2:
            tile(2, 2, x, x_at, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
        else:
            tile(3, 2, x, x_at, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
        done += 2
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    together = 4 if rows > MANY_ROWS else 1
    while done < panels:
        last = min(done + together, panels)
        row = 0
        for t in range(tiles):
            count = (rows - row + tiles - t - 1) // (tiles - t)  # 8 rows are 4 and 4: two would wait for their sums
            a = x_at + row * x_stride
            for p in range(done, last):
                w, o = weights_at + p * stride, out_at + row * out_stride + p * LANES
                if count == 6:
                    tile(6, 1, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
                elif count == 5:
                    tile(5, 1, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
                elif count == 4:
                    tile(4, 1, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
                elif count == 3:
                    tile(3, 1, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
                elif count == 2:
                    tile(2, 1, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
                else:
                    tile(1, 1, x, a, x_stride, weights, w, stride, ahead, depth, out, o, out_stride, add)
            row += count
        done = last
