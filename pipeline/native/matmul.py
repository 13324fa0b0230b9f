"""Matrix products with packed weights: `pack` once, then `multiply` rows of activations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .llvm import fma
from .tile import LANES, tile

ZERO = np.float32(0)

TILE_ROWS = 6
"""Rows of a tile: 6 * 2 sums, 2 columns and a factor are 15 of AVX's 16 registers."""

DEPTH = 512
"""A tile's rows over this depth stay in the first-level cache: 6 * 512 * 4 bytes = 12 KiB."""

GROUP = 128
"""Weights of a column, neighbours in depth, that share a scale in 8 bits."""


class Packed(NamedTuple):
    """Weights [outputs, depth] as panels of 16 outputs: `values` [panels, depth, 16], float32, bfloat16 as uint16, or
    int8 with `scales` float32 [panels, groups, 16] (empty otherwise). Outputs beyond the last are zero."""

    values: np.ndarray
    scales: np.ndarray


def pack(weights: np.ndarray, storage: str) -> Packed:
    """weights: float32 [outputs, depth]. `storage`: float32; bfloat16, rounded to nearest; or int8."""
    outputs, depth = weights.shape
    panels = -(-outputs // LANES)
    padded = np.zeros((panels * LANES, depth), np.float32)
    padded[:outputs] = weights
    values = np.ascontiguousarray(padded.reshape(panels, LANES, depth).transpose(0, 2, 1))
    none = np.zeros((panels, 0, LANES), np.float32)
    if storage == "float32":
        return Packed(values, none)
    if storage == "bfloat16":
        return Packed(_to_bfloat16(values), none)
    assert storage == "int8", storage
    groups = [values[:, start : start + GROUP] for start in range(0, depth, GROUP)]
    scales = np.stack([np.abs(group).max(1) for group in groups], axis=1) / np.float32(127)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    steps = [np.rint(group * inverse[:, i, None]).astype(np.int8) for i, group in enumerate(groups)]
    return Packed(np.concatenate(steps, axis=1), scales)


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper 16 bits of float32, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@numba.njit(nogil=True, error_model="numpy")
def multiply(x: Any, rows: int, weights: Any, scales: Any, out: Any, first: int, last: int, add: bool) -> None:
    """out[:rows, 16 * first : 16 * last] = x[:rows] @ those panels of weights; with `add`, that much more.

    x [at least rows, depth], weights and scales as in `Packed`, out [at least rows, 16 * panels]; contiguous.
    """
    depth, columns, panel = weights.shape[1], out.shape[1], weights.shape[1] * LANES
    if scales.size == 0:
        for k in range(0, depth, DEPTH):
            some = min(depth - k, DEPTH)
            at = first * panel + k * LANES
            more = add or k > 0
            product(
                x, k, x.shape[1], rows, weights, at, panel, last - first, some, out, first * LANES, columns, more
            )
        return
    part = np.empty((rows, LANES), np.float32)
    for p in range(first, last):
        for g in range(scales.shape[1]):
            k = g * GROUP
            at, some = p * panel + k * LANES, min(depth - k, GROUP)
            product(x, k, x.shape[1], rows, weights, at, panel, 1, some, part, 0, LANES, False)
            for r in range(rows):
                for c in range(LANES):
                    before = out[r, p * LANES + c] if add or g else ZERO
                    out[r, p * LANES + c] = fma(part[r, c], scales[p, g, c], before)


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
    depth: int,
    out: Any,
    out_at: int,
    out_stride: int,
    add: bool,
) -> None:
    """`tile` for any number of rows and panels. Few rows leave registers for several panels: more sums under way."""
    w, o, stride = weights_at, out_at, panel_stride
    done = 0
    if rows == 1:
        while done + 4 <= panels:
            tile(1, 4, x, x_at, x_stride, weights, w, stride, depth, out, o, out_stride, add)
            done, w, o = done + 4, w + 4 * stride, o + 4 * LANES
    elif rows == 2:
        while done + 2 <= panels:
            tile(2, 2, x, x_at, x_stride, weights, w, stride, depth, out, o, out_stride, add)
            done, w, o = done + 2, w + 2 * stride, o + 2 * LANES
    elif rows == 3:
        while done + 2 <= panels:
            tile(3, 2, x, x_at, x_stride, weights, w, stride, depth, out, o, out_stride, add)
            done, w, o = done + 2, w + 2 * stride, o + 2 * LANES
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    for p in range(done, panels):
        row = 0
        for t in range(tiles):
            count = (rows - row + tiles - t - 1) // (tiles - t)  # 8 rows are 4 and 4: two would wait for their sums
            a, c = x_at + row * x_stride, o + row * out_stride
            if count == 6:
                tile(6, 1, x, a, x_stride, weights, w, stride, depth, out, c, out_stride, add)
            elif count == 5:
                tile(5, 1, x, a, x_stride, weights, w, stride, depth, out, c, out_stride, add)
            elif count == 4:
                tile(4, 1, x, a, x_stride, weights, w, stride, depth, out, c, out_stride, add)
            elif count == 3:
                tile(3, 1, x, a, x_stride, weights, w, stride, depth, out, c, out_stride, add)
            elif count == 2:
                tile(2, 1, x, a, x_stride, weights, w, stride, depth, out, c, out_stride, add)
            else:
                tile(1, 1, x, a, x_stride, weights, w, stride, depth, out, c, out_stride, add)
            row += count
        w, o = w + stride, o + LANES
