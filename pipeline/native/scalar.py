"""Functions of one float32, written so that LLVM makes vector loops of loops over them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .llvm import fma, power_of_two

LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST = np.float32(-87.0)
_HALF, _ZERO, _ONE = np.float32(0.5), np.float32(0), np.float32(1)
EXP = tuple(
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
"""Coefficients of the polynomial of exp_negative, the highest first."""
_P0, _P1, _P2, _P3, _P4, _P5 = EXP


@numba.njit(inline="always")
def exp_negative(x: Any) -> Any:
    """e**x for x <= 0, to 2 units in the last place; 0 below -87, NaN for NaN. The polynomial is that of Cephes' expf
    (Moshier, 1989)."""
    above = LOWEST if x < LOWEST else x
    n = np.floor(fma(above, LOG2_E, _HALF))
    r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, above))
    p = fma(fma(fma(fma(fma(_P0, r, _P1), r, _P2), r, _P3), r, _P4), r, _P5)
    value = (fma(p, r * r, r) + _ONE) * power_of_two(np.int32(n))
    return _ZERO if x < LOWEST else value


@numba.njit(inline="always")
def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    e = exp_negative(-abs(x))
    return x * (_ONE if x >= _ZERO else e) / (_ONE + e)
