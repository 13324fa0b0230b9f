from __future__ import annotations

import numba
import numpy as np
import pytest
from numba.core import types
from numba.extending import intrinsic

from pipeline.native.scalar import emit_silu, exp_negative, swiglu


@intrinsic
def silu(typing, x):  # type: ignore
    return types.float32(types.float32), lambda context, builder, signature, args: emit_silu(builder, args[0])


@numba.njit(error_model="numpy")
def apply(x, exponential, gated):  # type: ignore
    for i in range(len(x)):
        exponential[i] = exp_negative(x[i])
    for i in range(len(x)):
        gated[i] = silu(x[i])


def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = np.empty_like(x), np.empty_like(x)
    apply(x, *out)
    return out


def units(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The errors in units of the last place of what is wanted, float64."""
    return np.abs(got - wanted) / np.spacing(np.abs(wanted).astype(np.float32)).astype(np.float64)


def below(x: float) -> np.ndarray:
    return np.nextafter(np.float32(x), np.float32(-np.inf))


NEGATIVE = np.concatenate([np.linspace(-87, 0, 300_001), -np.logspace(-30, 1.9, 100_001)]).astype(np.float32)


def test_the_exponential_is_precise() -> None:
    assert units(both(NEGATIVE)[0], np.exp(NEGATIVE.astype(np.float64))).max() <= 2


def test_the_exponential_at_its_ends() -> None:
    x = np.array([0, -0.0, -87, below(-87), -100, -1e30, -3e38, -np.inf], np.float32)
    out = both(x)[0]
    assert out[:2].tolist() == [1, 1]
    assert out[2] == pytest.approx(np.exp(-87.0), rel=1e-6)
    assert out[3:].tolist() == [0] * 5


def test_not_a_number_stays_that() -> None:
    for out in both(np.array([np.nan, -np.nan, -1] * 20, np.float32)):
        assert np.isnan(out).tolist() == [True, True, False] * 20


def test_silu_is_precise() -> None:
    x = np.concatenate([NEGATIVE, -NEGATIVE, np.linspace(-20, 20, 100_001, dtype=np.float32)])
    x = x[np.abs(x) > 1e-30]
    wanted = x / (1 + np.exp(-x.astype(np.float64)))
    large = np.abs(wanted) > np.finfo(np.float32).tiny  # the rest has fewer digits
    assert units(both(x)[1], wanted)[large].max() <= 3


def test_silu_at_its_ends() -> None:
    x = np.array([0, 1, 100, 3e38, np.inf, below(-87), -1e30], np.float32)
    assert both(x)[1].tolist() == [0, pytest.approx(1 / (1 + np.exp(-1)), rel=1e-6), 100, x[3], np.inf, 0, 0]


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 31, 33])
def test_the_same_in_vectors_and_alone(length: int) -> None:
    """A loop's last few, which don't fill a vector, come out as they would in one."""
    x = np.random.default_rng(length).uniform(-90, 0, 4096).astype(np.float32)
    for whole, parts in zip(
        both(x), zip(*(both(x[i : i + length]) for i in range(0, 4096, length)), strict=True), strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_gated_panel() -> None:
    """As one by one, from and to the middle of arrays."""

    @numba.njit
    def gate(gate_up, at, out, out_at):  # type: ignore
        swiglu(gate_up, at, out, out_at)

    gate_up, out = np.random.default_rng(0).uniform(-30, 30, 50).astype(np.float32), np.zeros(40, np.float32)
    gate(gate_up, 7, out, 11)
    np.testing.assert_array_equal(out[11:27], both(gate_up[7:23])[1] * gate_up[23:39])
    assert not out[:11].any()
    assert not out[27:].any()
