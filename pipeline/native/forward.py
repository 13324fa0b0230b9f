"""All layers of the decoder for the tokens of one step, computed by a team of threads without Python in between."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .attention import attend, write
from .matmul import NO, START, YES, multiply, panels_of_piece
from .packing import Packed
from .scalar import swiglu
from .team import claim, meet, take
from .tile import LANES

PHASES = 5
"""A layer's phases that are handed out in pieces: projections of q, k and v; attention; output; gate and up; down."""


class Weights(NamedTuple):
    """Of all layers. `qkv` holds the heads of queries, keys and values one after the other; `gate_up` a panel of each
    in turn."""

    qkv: Packed
    output: Packed
    gate_up: Packed
    down: Packed
    attention_norm: np.ndarray  # float32 [layers, D]
    mlp_norm: np.ndarray
    final_norm: np.ndarray  # float32 [D]
    cos: np.ndarray  # float32 [positions, head size / 2]
    sin: np.ndarray
    epsilon: np.float32


class Batch(NamedTuple):
    """Where the tokens stand. A tile is some tokens of one sequence: its table's row, its first token's row in the
    batch, how many."""

    positions: np.ndarray  # int64 [T]
    slots: np.ndarray  # int64 [T]
    tables: np.ndarray  # int32 [sequences, blocks]
    tiles: np.ndarray  # int64 [tiles, 3]


class Buffers(NamedTuple):
    """float32, a row a token."""

    normed: np.ndarray  # [T, D]
    qkv: np.ndarray  # [T, (heads + 2 KV heads) * head size]
    attended: np.ndarray  # [T, heads * head size]
    gate_up: np.ndarray  # [threads, T, PIECE * 16], of some panels
    gated: np.ndarray  # [T, intermediate size]


@numba.njit(nogil=True, error_model="numpy", inline="always")
def forward(
    thread: int, threads: int, shared: Any, x: Any, out: Any, batch: Any, weights: Any, cache: Any, b: Any, scratch: Any
) -> None:
    """x: [T, D], embeds in, overwritten; out: [T, D], after the final norm."""
    w, rows = weights, len(x)
    width, heads_kv = cache.values.shape[3] * LANES, cache.keys.shape[2]
    heads = b.attended.shape[1] // width
    group = heads // heads_kv
    mine = range(rows * thread // threads, rows * (thread + 1) // threads)
    for layer in range(len(w.attention_norm)):
        counter = PHASES * layer
        for row in mine:
            normalise(x[row], w.attention_norm[layer], w.epsilon, b.normed[row])
        meet(shared, threads)
        share(shared, counter, thread, threads, b.normed, rows, w.qkv, layer, b.qkv, NO)
        meet(shared, threads)
        for row in mine:
            place(b.qkv[row], heads, heads_kv, width, w, cache, layer, batch.positions[row], batch.slots[row])
        meet(shared, threads)
        while True:
            piece = take(shared, counter + 1)
            if piece >= len(batch.tiles) * heads_kv:
                break
            tile, head = batch.tiles[piece // heads_kv], piece % heads_kv
            first = tile[1]
            position, table = batch.positions[first], batch.tables[tile[0]]
            attend(b.qkv, first, tile[2], group, head, position, cache, layer, table, scratch, thread, b.attended)
        meet(shared, threads)
        share(shared, counter + 2, thread, threads, b.attended, rows, w.output, layer, x, YES)
        meet(shared, threads)
        for row in mine:
            normalise(x[row], w.mlp_norm[layer], w.epsilon, b.normed[row])
        meet(shared, threads)
        gate(shared, counter + 3, thread, threads, b, rows, w.gate_up, layer)
        meet(shared, threads)
        share(shared, counter + 4, thread, threads, b.gated, rows, w.down, layer, x, YES)
        meet(shared, threads)
    for row in mine:
        normalise(x[row], w.final_norm, w.epsilon, out[row])


@numba.njit(nogil=True, error_model="numpy")
def share(
    shared: Any, counter: int, thread: int, threads: int, x: Any, rows: int, w: Any, layer: int, out: Any, add: bool
) -> None:
    """out [rows, …] = x [rows, depth] @ a layer's weights, or with `add` that much more, by the whole team."""
    values, scales = w.values[layer], w.scales[layer]
    while True:
        first, last = claim(shared, counter, thread, threads, len(values), panels_of_piece(rows, w))
        if first == last:
            return
        multiply(x, rows, values, scales, out, first, last, add)


@numba.njit(nogil=True, error_model="numpy")
def gate(shared: Any, counter: int, thread: int, threads: int, b: Any, rows: int, w: Any, layer: int) -> None:
    """gated = silu(gate) * up, each piece by the thread that has multiplied it."""
    values, scales, part = w.values[layer], w.scales[layer], b.gate_up[thread]
    while True:
        first, last = claim(shared, counter, thread, threads, len(values) // 2, max(1, panels_of_piece(rows, w) // 2))
        if first == last:
            return
        panels = slice(2 * first, 2 * last)
        multiply(b.normed, rows, values[panels], scales[panels], part, START, 2 * (last - first), NO)
        for row in range(rows):
            for p in range(first, last):
                at = row * part.shape[1] + 2 * LANES * (p - first)
                swiglu(part, at, b.gated, row * b.gated.shape[1] + p * LANES)


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc"})
def normalise(x: Any, weight: Any, epsilon: float, out: Any) -> None:
    """RMSNorm (Zhang and Sennrich, 2019)."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    factor = np.float32(1) / np.sqrt(total / np.float32(len(x)) + epsilon)
    for i in range(len(x)):
        out[i] = x[i] * factor * weight[i]


@numba.njit(nogil=True, error_model="numpy")
def place(
    qkv: Any, heads: int, heads_kv: int, width: int, w: Any, cache: Any, layer: int, position: int, slot: int
) -> None:
    """Rotates one token's queries and keys (RoFormer, Su et al., 2021; in Llama's pairs: i with i + half), scales the
    queries, stores keys and values."""
    scale = np.float32(1) / np.sqrt(np.float32(width))
    half = width // 2
    for head in range(heads + heads_kv):
        factor = scale if head < heads else np.float32(1)
        at = head * width
        for i in range(half):
            cos, sin = w.cos[position, i] * factor, w.sin[position, i] * factor
            a, c = qkv[at + i], qkv[at + half + i]
            qkv[at + i] = a * cos - c * sin
            qkv[at + half + i] = c * cos + a * sin
    for head in range(heads_kv):
        k, v = (heads + head) * width, (heads + heads_kv + head) * width
        write(cache, layer, head, slot, qkv[k : k + width], qkv[v : v + width])
