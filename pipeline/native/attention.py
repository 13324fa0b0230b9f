"""Causal attention over the block table, with the softmax computed on the way (Milakov and Gimelshein, 2018; the order
of FlashAttention, Dao et al., 2022): block after block of keys and values, each read where it lies.

Both caches are made of panels, so `product` multiplies with them as with weights:
keys   [layers, blocks, KV heads, block size / 16, head size, 16]: 16 tokens a panel
values [layers, blocks, KV heads, head size / 16, block size, 16]: 16 components a panel

A query's result doesn't depend on the queries that are computed beside it: each block is handled from its first token
to the query's own, in order; what stands behind has weight 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .matmul import NO, START, YES, product
from .softmax import soften
from .tile import LANES

QUERY_ROWS = 48
"""Queries, of all heads of a group, that go through a block together: it is read once for them."""

_NEVER = np.float32(-np.inf)
_ZERO, _ONE = np.float32(0), np.float32(1)


class Cache(NamedTuple):
    """float32, laid out as above."""

    keys: np.ndarray
    values: np.ndarray


class Scratch(NamedTuple):
    """What a thread keeps at hand for a tile of `rows` queries: float32 [threads, rows, …]."""

    q: np.ndarray  # head size
    weights: np.ndarray  # block size
    out: np.ndarray  # head size
    kept: np.ndarray  # 2: the largest score yet, the sum of weights


def new_cache(layers: int, blocks: int, kv_heads: int, block_size: int, head_size: int) -> Cache:
    """Filled with zeros, so that its memory is there: a step that touches new pages waits for them, some 40 ms where a
    huge page of each layer is new (30 layers, two cores)."""
    assert block_size % LANES == head_size % LANES == 0
    shape = layers, blocks, kv_heads
    keys = np.full((*shape, block_size // LANES, head_size, LANES), 0, np.float32)
    return Cache(keys, np.full((*shape, head_size // LANES, block_size, LANES), 0, np.float32))


def new_scratch(threads: int, rows: int, block_size: int, head_size: int) -> Scratch:
    def empty(width: int) -> np.ndarray:
        return np.empty((threads, rows, width), np.float32)

    return Scratch(empty(head_size), empty(block_size), empty(head_size), empty(2))


@numba.njit(nogil=True, error_model="numpy")
def write(cache: Any, layer: int, head: int, slot: int, k: Any, v: Any) -> None:
    """Stores the key and the value of one token, [head size], at `slot` = block * block size + offset."""
    size = cache.values.shape[4]
    block, offset = slot // size, slot % size
    for i in range(len(k)):
        cache.keys[layer, block, head, offset // LANES, i, offset % LANES] = k[i]
        cache.values[layer, block, head, i // LANES, offset, i % LANES] = v[i]


@numba.njit(nogil=True, error_model="numpy")
def attend(
    q: Any,
    first: int,
    queries: int,
    heads: int,
    head: int,
    position: int,
    cache: Any,
    layer: int,
    table: Any,
    scratch: Any,
    thread: int,
    out: Any,
) -> None:
    """One KV head for `queries` tokens of a sequence, the first of which stands at `position`.

    q: scaled queries, a row a token, that begins with [heads of all KV heads, head size]; `heads` of them share the KV
    head `head`. out: [T, all heads * head size]. Both from row `first` on. table: int32, the sequence's blocks.
    """
    rows = queries * heads
    mine, weights, sums = scratch.q[thread], scratch.weights[thread], scratch.out[thread]
    kept, keys, values = scratch.kept[thread], cache.keys, cache.values
    width, size = mine.shape[1], weights.shape[1]
    parts = width // LANES
    for r in range(rows):
        at = (head * heads + r % heads) * width
        for i in range(width):
            mine[r, i], sums[r, i] = q[first + r // heads, at + i], _ZERO
        kept[r, 0], kept[r, 1] = _NEVER, _ZERO
    end = position + queries  # of what the last query sees
    block = keys.shape[2] * size * width
    for b in range((end + size - 1) // size):
        at = (layer * keys.shape[1] + table[b]) * block + head * size * width
        following = table[b + 1] if (b + 1) * size < end else table[b]
        ahead = (following - table[b]) * block
        tokens = min(size, end - b * size)
        panels = (tokens + LANES - 1) // LANES
        product(mine, START, width, rows, keys, at, LANES * width, panels, ahead, width, weights, START, size, NO)
        for r in range(rows):
            seen = min(size, position + r // heads + 1 - b * size)
            if seen > 0:
                soften(weights, r * size, size, seen, sums, r * width, width, kept, r)
            else:
                weights[r] = _ZERO
        product(weights, START, size, rows, values, at, LANES * size, parts, ahead, tokens, sums, START, width, YES)
    for r in range(rows):
        at = (head * heads + r % heads) * width
        share = _ONE / kept[r, 1]
        for i in range(width):
            out[first + r // heads, at + i] = sums[r, i] * share
