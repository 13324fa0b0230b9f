"""What the kernels compute, in numpy: each sum a chain of fused multiply-adds, in order."""

from __future__ import annotations

import numpy as np

from pipeline.native.packing import GROUP, Packed, Storage, allocate, pack

STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "int8")

UNIT = 2.0**-24
"""The relative error of one rounding to float32."""


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of float32, by way of float64, where the product is exact; the sum's second rounding tells once in 2**29."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def chain(x: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """start + x @ weights.T; x [rows, depth], weights [outputs, depth], start [rows, outputs], all float32."""
    total = start
    for k in range(x.shape[1]):
        total = fma(x[:, k, None], weights[:, k], total)
    return total


def packed(weights: np.ndarray, storage: Storage) -> Packed:
    into = allocate(*weights.shape, storage)
    pack(weights, into)
    return into


def stored(w: Packed) -> np.ndarray:
    """The numbers that were packed, float32 [16 * panels, depth]; of int8, without their scales."""
    values = w.values.transpose(0, 2, 1).reshape(-1, w.values.shape[1])
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def scales(w: Packed) -> np.ndarray:
    """[16 * panels, depth], a scale a number."""
    if not w.scales.size:
        return np.ones_like(stored(w))
    groups = w.scales.transpose(0, 2, 1).reshape(-1, w.scales.shape[1])
    return np.repeat(groups, GROUP, axis=1)[:, : w.values.shape[1]]


def multiplied(x: np.ndarray, w: Packed, before: np.ndarray) -> np.ndarray:
    """What `multiply` adds up, to the last bit: before + x @ weights.T."""
    numbers, scale = stored(w), scales(w)
    if not w.scales.size:
        return chain(x, numbers, before)
    total = before
    for k in range(0, x.shape[1], GROUP):
        part = chain(x[:, k : k + GROUP], numbers[:, k : k + GROUP], np.zeros_like(before))
        total = fma(part, scale[:, k], total)
    return total
