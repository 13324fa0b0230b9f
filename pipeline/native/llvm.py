"""What numba lacks and LLVM has: fused multiply-adds, vectors, atomic counters, a thread's yield."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

WIDE_REGISTERS = bool(binding.get_host_cpu_features().get("avx512f"))
"""Whether this processor has AVX-512's registers: 32, of 16 floats each."""

yield_thread = types.ExternalFunction("sched_yield", types.int32())
"""POSIX: lets another thread have the core, when one is waiting for it."""


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float32, rounded once, in loops that are vectorised as well as in those that are not."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


def integer(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


def splat(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    """A vector of `lanes` times the same."""
    empty, positions = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), ir.VectorType(ir.IntType(32), lanes)
    one = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, empty, ir.Constant(positions, [0] * lanes))


def call(builder: ir.IRBuilder, name: str, *args: Any) -> Any:
    """LLVM's function of float32, or of vectors of it."""
    kind = args[0].type
    suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
    function = ir.FunctionType(kind, [kind] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), args)


class Strided:
    """Pointers a stride apart, that move on together: in a loop they take a register for each three and two for all.

    LLVM would give each one of its own, and have too few; so each loop's step hides from it how they hang together.
    """

    def __init__(self, builder: ir.IRBuilder, first: Any, stride: Any, count: int) -> None:
        """`stride`: elements from one to the next."""
        self.builder, self.count = builder, count
        self.strides = [integer(0), stride, builder.mul(stride, integer(2))]
        firsts = [builder.gep(first, [builder.mul(stride, integer(i))]) for i in range(0, count, 3)]
        self.firsts = [cgutils.alloca_once_value(builder, place) for place in firsts]

    def pointers(self) -> list[Any]:
        """Where they stand now."""
        self._now = []
        for first in self.firsts:
            value = self.builder.load(first)
            kind = ir.FunctionType(value.type, [value.type])
            self._now.append(self.builder.asm(kind, "", "=r,0", [value], False))
        return [self.builder.gep(self._now[i // 3], [self.strides[i % 3]]) for i in range(self.count)]

    def advance(self, elements: int) -> None:
        """From where they stood."""
        for first, now in zip(self.firsts, self._now, strict=True):
            self.builder.store(self.builder.gep(now, [integer(elements)]), first)


def element(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, array: int = 0) -> Any:
    """An intrinsic's pointer into the contiguous array that is its argument number `array`; the next one says where, as
    if it were flat."""
    data = make_array(signature.args[array])(context, builder, args[array]).data
    return builder.gep(data, [args[array + 1]])


def prefetch_line(builder: ir.IRBuilder, place: Any) -> None:
    """Asks for a line of memory before it is needed; the place may lie anywhere."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    read, near, data = (ir.Constant(number, value) for value in (0, 3, 1))
    builder.call(function, [builder.bitcast(place, byte), read, near, data])


@intrinsic
def atomic_add(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Adds to an element of an int64 array; what it was before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        place = element(context, builder, signature, args)
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def atomic_load(typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load_atomic(element(context, builder, signature, args), "acquire", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def atomic_store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[2], element(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate
