"""The softmax on the way (see `attention`) of one query over one block, in LLVM vectors like `tile`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from .scalar import EXP, LN2_HIGH, LN2_LOW, LOG2_E, LOWEST
from .tile import LANES

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTEGERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)


@intrinsic
def soften(
    typing: Any,
    scores: Any,
    scores_at: Any,
    size: Any,
    seen: Any,
    sums: Any,
    sums_at: Any,
    width: Any,
    kept: Any,
    row: Any,
) -> Any:
    """Turns a query's `size` scores, of which the first `seen` count (at least one), into weights relative to its
    largest score yet; what was summed up before, `width` numbers of `sums`, shrinks accordingly. kept[row] is the
    largest score and the sum of all weights, before and after. `size` and `width` are multiples of 16."""
    array, number = types.Array, types.intp
    assert all(isinstance(given, array) for given in (scores, sums, kept))
    return types.void(scores, number, number, number, sums, number, number, kept, number), _generate


def _generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    scores, scores_at, size, seen, sums, sums_at, width, kept, row = args

    def first(position: int, array: Any, at: Any) -> Any:
        return builder.gep(make_array(signature.args[position])(context, builder, array).data, [at])

    begin, out = first(0, scores, scores_at), first(4, sums, sums_at)
    state = first(7, kept, builder.mul(row, _integer(2)))
    largest, total = state, builder.gep(state, [_integer(1)])
    before = builder.load(largest)
    tops, weights = cgutils.alloca_once(builder, _VECTOR), cgutils.alloca_once(builder, _VECTOR)
    builder.store(_splat(builder, before), tops)
    builder.store(ir.Constant(_VECTOR, [0.0] * LANES), weights)
    lanes = ir.Constant(_INTEGERS, list(range(LANES)))
    with cgutils.for_range_slice(builder, _integer(0), size, _integer(LANES)) as (i, _):
        place = _place(builder, begin, i)
        left = _splat(builder, builder.trunc(builder.sub(seen, i), _I32))
        counts = builder.icmp_signed("<", lanes, left)
        some = builder.select(counts, builder.load(place, align=4), ir.Constant(_VECTOR, [float("-inf")] * LANES))
        builder.store(some, place, align=4)
        top = builder.load(tops)
        builder.store(builder.select(builder.fcmp_ordered(">", some, top), some, top), tops)
    top = _reduce(builder, builder.load(tops), lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
    shift = _splat(builder, top)
    with cgutils.for_range_slice(builder, _integer(0), size, _integer(LANES)) as (i, _):
        place = _place(builder, begin, i)
        weight = exp_negative(builder, builder.fsub(builder.load(place, align=4), shift))
        builder.store(weight, place, align=4)
        builder.store(builder.fadd(builder.load(weights), weight), weights)
    shrink = exp_negative(builder, _splat(builder, builder.fsub(before, top)))
    factor = builder.extract_element(shrink, ir.Constant(_I32, 0))
    added = _reduce(builder, builder.load(weights), builder.fadd)
    builder.store(builder.fadd(builder.fmul(builder.load(total), factor), added), total)
    builder.store(top, largest)
    with cgutils.for_range_slice(builder, _integer(0), width, _integer(LANES)) as (i, _):
        place = _place(builder, out, i)
        builder.store(builder.fmul(builder.load(place, align=4), shrink), place, align=4)
    return context.get_dummy_value()


def exp_negative(builder: ir.IRBuilder, x: Any) -> Any:
    """`scalar.exp_negative` of a vector."""

    def constant(value: Any) -> ir.Constant:
        return ir.Constant(_VECTOR, [float(value)] * LANES)

    low = builder.fcmp_ordered("<", x, constant(LOWEST))
    above = builder.select(low, constant(LOWEST), x)
    n = _call(builder, "floor", _fma(builder, above, constant(LOG2_E), constant(0.5)))
    minus = builder.fsub(constant(-0.0), n)
    r = _fma(builder, minus, constant(LN2_LOW), _fma(builder, minus, constant(LN2_HIGH), above))
    p = constant(EXP[0])
    for coefficient in EXP[1:]:
        p = _fma(builder, p, r, constant(coefficient))
    one = builder.fadd(_fma(builder, p, builder.fmul(r, r), r), constant(1.0))
    biased = builder.add(builder.fptosi(n, _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
    power = builder.bitcast(builder.shl(biased, ir.Constant(_INTEGERS, [23] * LANES)), _VECTOR)
    return builder.select(low, constant(0.0), builder.fmul(one, power))


def _place(builder: ir.IRBuilder, begin: Any, i: Any) -> Any:
    return builder.bitcast(builder.gep(begin, [i]), _VECTOR.as_pointer())


def _splat(builder: ir.IRBuilder, value: Any) -> Any:
    empty = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(_INTEGERS, [0] * LANES))


def _reduce(builder: ir.IRBuilder, values: Any, combine: Any) -> Any:
    """Halves with halves, always in the same order."""
    width = LANES
    while width > 1:
        width //= 2
        moved = [width + i if i < width else i for i in range(LANES)]
        values = combine(values, builder.shuffle_vector(values, values, ir.Constant(_INTEGERS, moved)))
    return builder.extract_element(values, ir.Constant(_I32, 0))


def _fma(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, "fma", a, b, c)


def _call(builder: ir.IRBuilder, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), args)


def _integer(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)
