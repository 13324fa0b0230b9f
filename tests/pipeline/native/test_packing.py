from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.native import packing
from pipeline.native.packing import GROUP, Packed, Storage, allocate, exact_in_bfloat16, pack
from pipeline.native.tile import LANES

from .reference import STORAGES, packed, scales, stored

OUTPUTS, DEPTH = 37, 2 * GROUP + 44
"""No multiples of a panel's outputs and of a group's weights."""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def from_bits(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("storage", STORAGES)
def test_room_for_layers(storage: Storage) -> None:
    room = allocate(OUTPUTS, DEPTH, storage, 2, 5)
    kind = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}[storage]
    assert room.values.shape == (2, 5, 3, DEPTH, LANES)
    assert room.values.dtype == kind
    assert room.scales.shape == (2, 5, 3, 3 if storage == "int8" else 0, LANES)
    assert room.scales.dtype == np.float32


def test_panels_of_16_outputs() -> None:
    weights = normal(OUTPUTS, DEPTH)
    w = packed(weights, "float32")
    for output, k in ((0, 0), (15, 3), (16, 0), (36, DEPTH - 1)):
        assert w.values[output // LANES, k, output % LANES] == weights[output, k]
    np.testing.assert_array_equal(stored(w)[:OUTPUTS], weights)


@pytest.mark.parametrize("storage", STORAGES)
def test_beyond_the_last_output_is_zero(storage: Storage) -> None:
    """Whatever was in the room before."""
    room = allocate(OUTPUTS, DEPTH, storage)
    room.values.fill(77)
    room.scales.fill(np.nan)
    pack(normal(OUTPUTS, DEPTH), room)
    assert not stored(room)[OUTPUTS:].any()
    assert np.isfinite(room.scales).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_large_weights_are_packed_piece_by_piece(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = normal(5 * LANES + 3, DEPTH)
    whole = packed(weights, storage)
    monkeypatch.setattr(packing, "PACKED_AT_ONCE", 2)
    for part, wanted in zip(packed(weights, storage), whole, strict=True):
        np.testing.assert_array_equal(part, wanted)


def test_bfloat16_is_rounded_as_torch_does() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (61, 1024), np.uint32)
    bits[10:20] = bits[10:20] & 0xFFFF0000 | 0x8000  # half way between two
    bits[20:30] = bits[20:30] & 0xFFFF0000 | 0x7FFF + rng.integers(0, 3, (10, 1024), np.uint32)
    bits[30, :7] = 0, 0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000  # zeros, tiny, largest, infinite
    weights = from_bits(bits)
    weights[np.isnan(weights)] = 1
    wanted = torch.from_numpy(weights).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    got = packed(weights, "bfloat16").values.transpose(0, 2, 1).reshape(-1, 1024)
    np.testing.assert_array_equal(got[:61], wanted)


def test_bfloat16_that_is_no_number() -> None:
    assert np.isnan(stored(packed(np.full((1, 3), np.nan, np.float32), "bfloat16"))[0]).all()


class TestInt8:
    def test_half_a_step_is_lost_at_most(self) -> None:
        weights = normal(OUTPUTS, DEPTH) * np.logspace(-20, 20, OUTPUTS, dtype=np.float32)[:, None]
        weights[5, GROUP + 3] *= 1000  # an outlier is a matter of its own group
        w = packed(weights, "int8")
        for g in range(3):
            group = slice(g * GROUP, (g + 1) * GROUP)
            largest = np.abs(weights[:, group]).max(1)
            scale = scales(w)[:OUTPUTS, group]
            np.testing.assert_allclose(scale[:, 0], largest / 127, rtol=1e-6)
            error = np.abs(stored(w)[:OUTPUTS, group] * scale.astype(np.float64) - weights[:, group])
            assert (error <= scale * (0.5 + 1e-5)).all()
            assert (np.abs(stored(w)[:OUTPUTS, group]).max(1) == 127).all()

    def test_the_largest_of_both_signs(self) -> None:
        weights = np.zeros((LANES, GROUP), np.float32)
        weights[:, 0], weights[:, 1], weights[:, 2] = -3, 3, 1.5
        w = packed(weights, "int8")
        assert w.values[0, :3, 7].tolist() == [-127, 127, 64]  # 63.5 is rounded to even

    def test_a_group_of_zeros(self) -> None:
        weights = normal(OUTPUTS, DEPTH)
        weights[:, GROUP : 2 * GROUP] = 0
        weights[20] = 0
        w = packed(weights, "int8")
        assert not w.scales[:, 1].any()
        assert not stored(w)[:, GROUP : 2 * GROUP].any()
        assert not stored(w)[20].any()
        assert not w.scales[1, :, 4].any()
        assert w.scales[0, 0].all()

    def test_integers_are_kept(self) -> None:
        weights = np.random.default_rng(0).integers(-127, 128, (OUTPUTS, DEPTH)).astype(np.float32)
        weights[:, ::GROUP] = 127
        w = packed(weights, "int8")
        np.testing.assert_array_equal(stored(w)[:OUTPUTS], weights)
        assert (scales(w)[:OUTPUTS] == 1).all()


def test_a_stack_of_layers() -> None:
    room = allocate(OUTPUTS, DEPTH, "int8", 2)
    layers = [normal(OUTPUTS, DEPTH, seed=i) for i in range(2)]
    for i, weights in enumerate(layers):
        pack(weights, Packed(room.values[i], room.scales[i]))
    for i, weights in enumerate(layers):
        for part, wanted in zip(room, packed(weights, "int8"), strict=True):
            np.testing.assert_array_equal(part[i], wanted)


def test_exact_in_bfloat16() -> None:
    weights = torch.from_numpy(normal(8, 16)).to(torch.bfloat16).float().numpy()
    assert exact_in_bfloat16(weights)
    for place in ((0, 0), (7, 15), (3, 8)):
        other = weights.copy()
        other[place] = np.nextafter(other[place], np.float32(9))
        assert not exact_in_bfloat16(other)
    np.testing.assert_array_equal(stored(packed(weights, "bfloat16"))[:8], weights)
