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

from .llvm import Strided, call, element, integer, prefetch_line, splat

LANES = 16
"""Columns of a panel."""

UNROLL = 4

LINE_BYTES = 64
"""What memory is read in."""

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
_VECTOR = ir.VectorType(_F32, LANES)
_STORED = {types.float32: _F32, types.uint16: _I16, types.int8: _I8}
"""How weights may be stored: float32; bfloat16, as its bits; 8-bit integers, with a scale a column."""

_SIZES = {_F32: 4, _I16: 2, _I8: 1}
"""In bytes."""


@intrinsic(prefer_literal=True)
def tile(
    typing: Any,
    most: Any,
    panels: Any,
    parts: Any,
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

    `rows` is at least 1 and at most the constant `most`, `panels` a constant. x, weights and out are contiguous arrays;
    `…_at` is the first element that is meant, counted in the flattened array, `…_stride` the elements from one row or
    panel to the next. x and out are float32; weights float32, bfloat16 as uint16, or int8.

    Meanwhile memory is asked for what is needed soon: for each panel as much as one of so many equal `parts` of it
    takes (a constant), from `ahead` elements behind the panel on.
    """
    if not all(isinstance(each, types.IntegerLiteral) for each in (most, panels, parts)):
        raise TypingError("most, panels and parts must be constants")
    if weights.dtype not in _STORED:
        raise TypingError(f"weights of {weights.dtype} can't be multiplied")
    one, two = types.intp, (types.intp, types.intp)
    return types.void(most, panels, parts, one, x, *two, weights, *two, *two, out, *two, types.boolean), _generate


def _generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    """Calls the function for the number of rows."""
    most, panels, parts = (kind.literal_value for kind in signature.args[:3])
    stored = _STORED[signature.args[7].dtype]
    x, weights, out = (element(context, builder, signature, args, array) for array in (4, 7, 12))
    values = [x, args[6], weights, *args[9:12], out, *args[14:]]
    end = builder.append_basic_block("tiled")
    blocks = [builder.append_basic_block(f"tile_{count}_{panels}") for count in range(1, most + 1)]
    switch = builder.switch(args[3], blocks[-1])
    for count, block in enumerate(blocks, start=1):
        switch.add_case(integer(count), block)
        builder.position_at_end(block)
        builder.call(_function(builder.module, count, panels, parts, stored), values)
        builder.branch(end)
    builder.position_at_end(end)
    return context.get_dummy_value()


def _function(module: ir.Module, rows: int, panels: int, parts: int, stored: ir.Type) -> ir.Function:
    """One of its own for each kind of tile: within another it would share that one's registers, and have too few."""
    name = f"megrez_tile_{rows}_{panels}_{parts}_{stored}"
    if name in module.globals:
        return module.globals[name]
    float_, weight = _F32.as_pointer(), stored.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [float_, _I64, weight, _I64, _I64, _I64, float_, _I64, ir.IntType(1)])
    function = ir.Function(module, kind, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    _multiply(builder, rows, panels, parts, stored, *function.args)
    builder.ret_void()
    return function


def _multiply(
    builder: ir.IRBuilder,
    rows: int,
    panels: int,
    parts: int,
    stored: ir.Type,
    x: Any,
    x_stride: Any,
    weights: Any,
    panel_stride: Any,
    ahead: Any,
    depth: Any,
    out: Any,
    out_stride: Any,
    add: Any,
) -> None:
    """Pointers to the first elements that are meant."""
    line = LINE_BYTES // _SIZES[stored]  # in elements
    lines = -(-UNROLL * LANES // (line * parts))  # to ask for in an unrolled step, of each panel
    x_rows, columns = Strided(builder, x, x_stride, rows), Strided(builder, weights, panel_stride, panels)
    asked = Strided(builder, builder.gep(weights, [ahead]), panel_stride, panels)
    places = [
        vector_at(builder, row, integer(LANES * p))
        for row in Strided(builder, out, out_stride, rows).pointers()
        for p in range(panels)
    ]
    sums = [cgutils.alloca_once(builder, _VECTOR) for _ in places]
    with builder.if_else(add) as (then, otherwise):
        with then:
            for total, place in zip(sums, places, strict=True):
                builder.store(builder.load(place, align=4), total)
        with otherwise:
            for total in sums:
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)

    def accumulate(steps: int) -> None:
        xs, ws = x_rows.pointers(), columns.pointers()
        for place in asked.pointers():
            for i in range(lines):
                prefetch_line(builder, builder.gep(place, [integer(line * i)]))
        for k in range(steps):
            column = [_load(builder, w, k, stored) for w in ws]
            for r, at in enumerate(xs):
                value = splat(builder, builder.load(builder.gep(at, [integer(k)])), LANES)
                for p in range(panels):
                    total = sums[r * panels + p]
                    builder.store(call(builder, "fma", value, column[p], builder.load(total)), total)
        x_rows.advance(steps)
        columns.advance(LANES * steps)
        asked.advance(line * lines)

    whole = builder.and_(depth, integer(-UNROLL))
    with cgutils.for_range_slice(builder, integer(0), whole, integer(UNROLL)):
        accumulate(UNROLL)
    with cgutils.for_range_slice(builder, whole, depth, integer(1)):
        accumulate(1)
    for total, place in zip(sums, places, strict=True):
        builder.store(builder.load(total), place, align=4)


def vector_at(builder: ir.IRBuilder, first: Any, offset: Any) -> Any:
    """A pointer to 16 floats, `offset` behind the first."""
    return builder.bitcast(builder.gep(first, [offset]), _VECTOR.as_pointer())


def _load(builder: ir.IRBuilder, panel: Any, k: int, stored: ir.Type) -> Any:
    """Row k of a panel, widened to float32."""
    place = builder.gep(panel, [integer(LANES * k)])
    kind = ir.VectorType(stored, LANES)
    values = builder.load(builder.bitcast(place, kind.as_pointer()), align=_SIZES[stored])
    if stored == _F32:
        return values
    wide = ir.VectorType(_I32, LANES)
    if stored == _I16:
        bits = builder.shl(builder.zext(values, wide), ir.Constant(wide, [16] * LANES))
        return builder.bitcast(bits, _VECTOR)
    return builder.sitofp(builder.sext(values, wide), _VECTOR)
