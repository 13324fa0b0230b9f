"""Functions of one float32, or of a vector of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .llvm import call, element, integer
from .tile import LANES, vector_at

_LOG2_E = 1.44269504
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_LOWEST = -87.0
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def emit_exp_negative(builder: ir.IRBuilder, x: Any) -> Any:
    """e**x of a float32 or a vector of them, for x <= 0, to 2 units in the last place; 0 below -87, NaN for NaN. The
    polynomial is that of Cephes' expf (Moshier, 1989)."""
    lanes = x.type.count if isinstance(x.type, ir.VectorType) else None
    whole = ir.VectorType(ir.IntType(32), lanes) if lanes else ir.IntType(32)

    def constant(value: Any, kind: Any = x.type) -> ir.Constant:
        return ir.Constant(kind, [value] * lanes if lanes else value)

    def number(value: float) -> ir.Constant:
        return constant(float(np.float32(value)))

    low = builder.fcmp_ordered("<", x, number(_LOWEST))
    above = builder.select(low, number(_LOWEST), x)
    n = call(builder, "floor", call(builder, "fma", above, number(_LOG2_E), number(0.5)))
    minus = builder.fsub(number(-0.0), n)
    r = call(builder, "fma", minus, number(_LN2_LOW), call(builder, "fma", minus, number(_LN2_HIGH), above))
    p = number(_EXP[0])
    for coefficient in _EXP[1:]:
        p = call(builder, "fma", p, r, number(coefficient))
    mantissa = builder.fadd(call(builder, "fma", p, builder.fmul(r, r), r), number(1.0))
    biased = builder.add(builder.fptosi(n, whole), constant(127, whole))
    power = builder.bitcast(builder.shl(biased, constant(23, whole)), x.type)
    return builder.select(low, number(0.0), builder.fmul(mantissa, power))


@intrinsic
def exp_negative(typing: Any, x: Any) -> Any:
    """`emit_exp_negative` of one."""
    return types.float32(types.float32), lambda context, builder, signature, args: emit_exp_negative(builder, args[0])


def emit_silu(builder: ir.IRBuilder, x: Any) -> Any:
    """x * sigmoid(x) of a float32 or a vector of them."""
    one = ir.Constant(x.type, [1.0] * x.type.count if isinstance(x.type, ir.VectorType) else 1.0)
    e = emit_exp_negative(builder, builder.fneg(call(builder, "fabs", x)))
    share = builder.select(builder.fcmp_ordered(">=", x, ir.Constant(x.type, None)), one, e)
    return builder.fdiv(builder.fmul(x, share), builder.fadd(one, e))


@intrinsic
def swiglu(typing: Any, gate_up: Any, at: Any, out: Any, out_at: Any) -> Any:
    """out[out_at + i] = silu(gate_up[at + i]) * gate_up[at + 16 + i] for i < 16 (Shazeer, "GLU variants improve
    transformer", 2020); of contiguous arrays, counted as if they were flat."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        first, place = (element(context, builder, signature, args, array) for array in (0, 2))
        gate = builder.load(vector_at(builder, first, integer(0)), align=4)
        up = builder.load(vector_at(builder, first, integer(LANES)), align=4)
        builder.store(builder.fmul(emit_silu(builder, gate), up), vector_at(builder, place, integer(0)), align=4)
        return context.get_dummy_value()

    return types.void(gate_up, types.intp, out, types.intp), generate
