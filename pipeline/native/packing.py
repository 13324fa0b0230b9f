"""Weights in the order in which `tile` reads them, in 32, 16 or 8 bits."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from .tile import LANES

GROUP = 128
"""Weights of an output, neighbours in depth, that share a scale in 8 bits."""

PACKED_AT_ONCE = 512
"""Panels; bounds what packing takes beside the weights themselves."""

Storage = Literal["float32", "bfloat16", "int8"]

_STORED: dict[str, type] = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}


class Packed(NamedTuple):
    """Weights [outputs, depth] as panels of 16 outputs; those beyond the last output are zero.

    values: [panels, depth, 16], float32, bfloat16 as uint16, or int8; scales: float32 [panels, groups, 16], of int8
    only (otherwise there are no groups). With layers in front of both, of a stack of them.
    """

    values: np.ndarray
    scales: np.ndarray


def allocate(outputs: int, depth: int, storage: Storage, *layers: int) -> Packed:
    """Room for packed weights, in as many `layers`."""
    panels, groups = -(-outputs // LANES), -(-depth // GROUP) if storage == "int8" else 0
    values: np.ndarray = np.empty((*layers, panels, depth, LANES), _STORED[storage])
    return Packed(values, np.empty((*layers, panels, groups, LANES), np.float32))


def pack(weights: np.ndarray, into: Packed) -> None:
    """weights: float32 [outputs, depth]. bfloat16 is rounded to nearest, ties to even; int8 to the nearest of 255 steps
    from minus to plus the largest of its group."""
    for first in range(0, len(into.values), PACKED_AT_ONCE):
        some = weights[first * LANES : (first + PACKED_AT_ONCE) * LANES]
        panels = np.zeros((-(-len(some) // LANES), LANES, some.shape[1]), np.float32)
        panels.reshape(-1, some.shape[1])[: len(some)] = some
        place = slice(first, first + len(panels))
        if into.values.dtype == np.int8:
            _quantise(panels, Packed(into.values[place], into.scales[place]))
        elif into.values.dtype == np.uint16:
            bits = panels.view(np.uint32)
            rounded = bits + np.uint32(0x7FFF) + (bits >> 16 & 1)
            into.values[place] = (rounded >> 16).astype(np.uint16).transpose(0, 2, 1)
        else:
            into.values[place] = panels.transpose(0, 2, 1)


def exact_in_bfloat16(weights: np.ndarray) -> bool:
    """Whether nothing is lost by storing these float32 in 16 bits."""
    return not np.any(weights.view(np.uint32) & np.uint32(0xFFFF))


def _quantise(panels: np.ndarray, into: Packed) -> None:
    """panels: [n, 16, depth]."""
    for g in range(into.scales.shape[1]):
        group = panels[:, :, g * GROUP : (g + 1) * GROUP]
        scales = np.abs(group).max(2) / np.float32(127)
        steps = group / np.where(scales > 0, scales, np.float32(1))[:, :, None]
        into.values[:, g * GROUP : (g + 1) * GROUP] = np.rint(steps).transpose(0, 2, 1)
        into.scales[:, g] = scales
