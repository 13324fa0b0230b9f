"""The softmax on the way (see `attention`) of one query over one block, in LLVM vectors like `tile`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .llvm import element, integer, splat
from .scalar import emit_exp_negative
from .tile import LANES, vector_at

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
    size, seen, width, row = args[2], args[3], args[6], args[8]
    begin, out, kept = (element(context, builder, signature, args, array) for array in (0, 4, 7))
    largest = builder.gep(kept, [row])  # two numbers a row
    total = builder.gep(largest, [integer(1)])
    before = builder.load(largest)
    tops, weights = cgutils.alloca_once(builder, _VECTOR), cgutils.alloca_once(builder, _VECTOR)
    builder.store(splat(builder, before, LANES), tops)
    builder.store(ir.Constant(_VECTOR, [0.0] * LANES), weights)
    lanes = ir.Constant(_INTEGERS, list(range(LANES)))
    with cgutils.for_range_slice(builder, integer(0), size, integer(LANES)) as (i, _):
        place = vector_at(builder, begin, i)
        left = splat(builder, builder.trunc(builder.sub(seen, i), _I32), LANES)
        counts = builder.icmp_signed("<", lanes, left)
        some = builder.select(counts, builder.load(place, align=4), ir.Constant(_VECTOR, [float("-inf")] * LANES))
        builder.store(some, place, align=4)
        top = builder.load(tops)
        builder.store(builder.select(builder.fcmp_ordered(">", some, top), some, top), tops)
    top = _reduce(builder, builder.load(tops), lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
    shift = splat(builder, top, LANES)
    with cgutils.for_range_slice(builder, integer(0), size, integer(LANES)) as (i, _):
        place = vector_at(builder, begin, i)
        weight = emit_exp_negative(builder, builder.fsub(builder.load(place, align=4), shift))
        builder.store(weight, place, align=4)
        builder.store(builder.fadd(builder.load(weights), weight), weights)
    shrink = emit_exp_negative(builder, splat(builder, builder.fsub(before, top), LANES))
    factor = builder.extract_element(shrink, ir.Constant(_I32, 0))
    added = _reduce(builder, builder.load(weights), builder.fadd)
    builder.store(builder.fadd(builder.fmul(builder.load(total), factor), added), total)
    builder.store(top, largest)
    with cgutils.for_range_slice(builder, integer(0), width, integer(LANES)) as (i, _):
        place = vector_at(builder, out, i)
        builder.store(builder.fmul(builder.load(place, align=4), shrink), place, align=4)
    return context.get_dummy_value()


def _reduce(builder: ir.IRBuilder, values: Any, combine: Any) -> Any:
    """Halves with halves, always in the same order."""
    width = LANES
    while width > 1:
        width //= 2
        moved = [width + i if i < width else i for i in range(LANES)]
        values = combine(values, builder.shuffle_vector(values, values, ir.Constant(_INTEGERS, moved)))
    return builder.extract_element(values, ir.Constant(_I32, 0))
