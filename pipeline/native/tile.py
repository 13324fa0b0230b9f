"""The one inner loop that everything here is made of: a small matrix product held in registers.

`tile` multiplies some rows of float32 with some panels of 16 columns. A panel is [depth, 16] and contiguous, so the
weights are read as one stream, each value once for all rows. It is written as LLVM vectors of 16 floats: two AVX
registers, one of AVX-512, four of NEON.

Each sum is one chain of fused multiply-adds over the depth, in order, whatever the number of rows and however the
depth is cut: the result for a row does not depend on which other rows are computed with it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from .llvm import call, integer, prefetch_line, splat

LANES = 16
"""Columns of a panel."""

UNROLL = 4

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
_VECTOR = ir.VectorType(_F32, LANES)
_STORED = {types.float32: _F32, types.uint16: _I16, types.int8: _I8}
"""How weights may be stored: float32; bfloat16, as its bits; 8-bit integers, with a scale a column."""


@intrinsic(prefer_literal=True)
def tile(
    typing: Any,
    most: Any,
    panels: Any,
    rows: Any,
    x: Any,
    x_at: Any,
    x_stride: Any,
    weights: Any,
    weights_at: Any,
    panel_stride: Any,
    ahead: Any,
    depth: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
    add: Any,
) -> Any:
    """out[r, c] = sum over k < depth of x[r, k] * weights[c // 16, k, c % 16], or with `add` that much more.

    `rows` is at least 1 and at most the constant `most`, `panels` a constant; `ahead` elements behind each weight lies
    one that is needed soon and asked for now (a constant 0: none). x, weights and out are contiguous arrays; `…_at` is
    the first element that is meant, counted in the flattened array, `…_stride` the elements from one row or panel to
    the next. x and out are float32; weights float32, bfloat16 as uint16, or int8.
    """
    if not isinstance(most, types.IntegerLiteral) or not isinstance(panels, types.IntegerLiteral):
        raise TypingError("most and panels must be constants")
    if weights.dtype not in _STORED:
        raise TypingError(f"weights of {weights.dtype} can't be multiplied")
    integers = types.intp, types.intp
    none = isinstance(ahead, types.IntegerLiteral) and ahead.literal_value == 0
    ahead = ahead if none else types.intp
    signature = types.void(
        most, panels, types.intp, x, *integers, weights, *integers, ahead, types.intp, out, *integers, types.boolean
    )
    return signature, _generate


def _generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    """Code for each number of rows, of which one is chosen."""
    most, panels = signature.args[0].literal_value, signature.args[1].literal_value
    rows, x, x_at, x_stride, weights, weights_at, panel_stride, ahead, depth, out, out_at, out_stride, add = args[2:]
    prefetching = not isinstance(signature.args[9], types.IntegerLiteral)
    stored = _STORED[signature.args[6].dtype]

    def pointer(position: int, value: Any, *offsets: Any) -> Any:
        data = make_array(signature.args[position])(context, builder, value).data
        for offset in offsets:
            data = builder.gep(data, [offset])
        return data

    def times(value: Any, number: int) -> Any:
        return builder.mul(value, integer(number))

    x_rows = [pointer(3, x, x_at, times(x_stride, r)) for r in range(most)]
    w_panels = [pointer(6, weights, weights_at, times(panel_stride, p)) for p in range(panels)]
    out_rows = [
        [
            builder.bitcast(pointer(11, out, out_at, times(out_stride, r), integer(LANES * p)), _VECTOR.as_pointer())
            for p in range(panels)
        ]
        for r in range(most)
    ]
    end = builder.append_basic_block("tiled")
    blocks = [builder.append_basic_block(f"tile_{count}_{panels}") for count in range(1, most + 1)]
    switch = builder.switch(rows, blocks[-1])
    for count, block in enumerate(blocks, start=1):
        switch.add_case(integer(count), block)
        builder.position_at_end(block)
        _multiply(
            builder, x_rows[:count], w_panels, out_rows[:count], depth, ahead if prefetching else None, stored, add
        )
        builder.branch(end)
    builder.position_at_end(end)
    return context.get_dummy_value()


def _multiply(
    builder: ir.IRBuilder,
    x_rows: list[Any],
    w_panels: list[Any],
    out_rows: list[list[Any]],
    depth: Any,
    ahead: Any,
    stored: ir.Type,
    add: Any,
) -> None:
    """Pointers to the first elements of rows and panels, and to the vectors of the result."""
    sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in w_panels] for _ in x_rows]
    places = [(s, o) for of_row, outs in zip(sums, out_rows, strict=True) for s, o in zip(of_row, outs, strict=True)]
    with builder.if_else(add) as (then, otherwise):
        with then:
            for total, place in places:
                builder.store(builder.load(place, align=4), total)
        with otherwise:
            for total, _ in places:
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)

    def accumulate(k: Any) -> None:
        columns = [_load(builder, w, k, stored) for w in w_panels]
        for w in w_panels if ahead is not None else ():
            prefetch_line(builder, builder.gep(w, [builder.add(builder.mul(k, integer(LANES)), ahead)]))
        for x, of_row in zip(x_rows, sums, strict=True):
            value = splat(builder, builder.load(builder.gep(x, [k])), LANES)
            for total, column in zip(of_row, columns, strict=True):
                builder.store(call(builder, "fma", value, column, builder.load(total)), total)

    whole = builder.and_(depth, integer(-UNROLL))
    with cgutils.for_range_slice(builder, integer(0), whole, integer(UNROLL)) as (k, _):
        for step in range(UNROLL):
            accumulate(builder.add(k, integer(step)))
    with cgutils.for_range_slice(builder, whole, depth, integer(1)) as (k, _):
        accumulate(k)
    for total, place in places:
        builder.store(builder.load(total), place, align=4)


def _load(builder: ir.IRBuilder, panel: Any, k: Any, stored: ir.Type) -> Any:
    """Row k of a panel, widened to float32."""
    place = builder.gep(panel, [builder.mul(k, integer(LANES))])
    kind = ir.VectorType(stored, LANES)
    values = builder.load(builder.bitcast(place, kind.as_pointer()), align=stored.width // 8 if stored != _F32 else 4)
    if stored == _F32:
        return values
    wide = ir.VectorType(_I32, LANES)
    if stored == _I16:
        bits = builder.shl(builder.zext(values, wide), ir.Constant(wide, [16] * LANES))
        return builder.bitcast(bits, _VECTOR)
    return builder.sitofp(builder.sext(values, wide), _VECTOR)
