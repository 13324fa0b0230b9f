"""Attention for training on CPUs that multiply in bfloat16."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from pipeline.model.attention import Packing, TorchAttention

from .hardware import rounded_up

TILE = 1 << 21
"""Bytes of scores at a time. Those of all sequences at once don't stay in a core's cache: with them a step of the
default checkpoint's decoder took 1.06 to 1.18 times as long, one of its vision encoder 1.13 times."""

BLOCK = 64
"""Positions at a time of a causal sequence: what stands after the last of them is not computed."""

MULTIPLE = 8
"""The sequences of a group are padded to a multiple of so many positions."""


class Scratch(threading.local):
    """Memory for what is needed for a moment, kept by name: allocated anew, in ever other sizes, it took malloc a
    tenth of the time to find."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def __call__(self, name: str, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        size, kept = math.prod(shape), self.kept.get((name, dtype))
        if kept is None or len(kept) < size:
            with torch.inference_mode(False):
                kept = self.kept[name, dtype] = torch.empty(size, dtype=dtype)
        return kept[:size].view(shape)


scratch = Scratch()


class MatmulAttention(TorchAttention):
    """`varlen` as two batched products and a softmax, over groups of sequences of like lengths.

    torch's fused attention is faster on CPU but for its gradients: where the processor has bfloat16 products, a step of
    the default checkpoint's decoder under autocast takes 1.5 s with this and 3.1 s with that, at the price of the
    weights' memory.
    """

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        out: torch.Tensor = _Attention.apply(q, k, v, packing.lengths, causal)  # type: ignore[no-untyped-call]
        return out


@dataclass(frozen=True)
class Group:
    """Sequences side by side, [n, longest]: where each begins among the tokens, and how long it is."""

    starts: list[int]
    lengths: list[int]

    @property
    def longest(self) -> int:
        return -(-max(self.lengths) // MULTIPLE) * MULTIPLE

    def taken(self, x: torch.Tensor, kv_heads: int) -> torch.Tensor:
        """[T, heads, d] -> [n * KV heads, longest * (heads / KV heads), d], zero where a sequence has ended. Heads that
        share a KV head stand below each other at each position, so that one product serves them all."""
        x = x.unflatten(1, (kv_heads, -1))
        out = x.new_zeros(len(self.starts), kv_heads, self.longest, *x.shape[2:])
        for each, start, length in zip(out, self.starts, self.lengths, strict=True):
            each[:, :length] = x[start : start + length].transpose(0, 1)
        return out.flatten(2, 3).flatten(0, 1)

    def put(self, x: torch.Tensor, into: torch.Tensor) -> None:
        """The other way round, into [T, heads, d]."""
        x = x.view(len(self.starts), -1, self.longest, x.shape[1] // self.longest, x.shape[2])  # [n, KV heads, …]
        into = into.unflatten(1, x.shape[1:4:2])
        for each, start, length in zip(x, self.starts, self.lengths, strict=True):
            into[start : start + length] = each[:, :length].transpose(0, 1)

    def padding(self, kv_heads: int) -> torch.Tensor:
        """What is added to the scores of the last columns, some of which are padding: [n * KV heads, 1, columns]."""
        columns = torch.arange(min(self.lengths), self.longest)
        outside = columns >= torch.tensor(self.lengths)[:, None]
        padding = torch.zeros(outside.shape).masked_fill_(outside, float("-inf"))
        return padding.repeat_interleave(kv_heads, dim=0)[:, None]


def _groups(lengths: tuple[int, ...]) -> Iterator[Group]:
    starts = list(accumulate((0, *lengths)))
    for members in _alike(lengths):
        yield Group([starts[i] for i in members], [lengths[i] for i in members])


def _alike(lengths: tuple[int, ...]) -> Iterator[list[int]]:
    """Sequences by rising length, in groups whose longest is at most a quarter (and 16) over the shortest."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    group: list[int] = []
    for i in order:
        if group and lengths[i] > 1.25 * lengths[group[0]] + 16:
            yield group
            group = []
        group.append(i)
    yield group


def _blocks(rows: int, columns: int, causal: bool) -> Iterator[tuple[slice, int, int]]:
    """Rows, how many columns they look at, and from which of these on not every row looks at all."""
    if not causal:
        yield slice(0, rows), columns, columns
        return
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        yield slice(start * rows // columns, stop * rows // columns), stop, start


def _tiles(n: int, rows: int, columns: int) -> Iterator[slice]:
    """Sequences whose scores, of float32, have TILE bytes."""
    size = max(TILE // (4 * rows * columns), 1)
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


class _Attention(torch.autograd.Function):
    """softmax(q kᵀ / √d) v of each sequence, and its gradients.

    Scores and their softmax are of float32: a bfloat16 score near 40 is up to 0.13 off, and its weight by an eighth.
    The rest is in the inputs' type: on a CPU with bfloat16 products the time goes into memory.
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: tuple[int, ...], causal: bool
    ) -> torch.Tensor:
        """q [T, heads, d], k and v [T, KV heads, d] -> like q"""
        kept: list[torch.Tensor] = []
        out, heads = torch.empty_like(q), k.shape[1]
        with torch.autocast("cpu", enabled=False):
            for group in _groups(lengths):
                a, b, c = (group.taken(x, heads) for x in (q, k, v))
                padding = None if causal else group.padding(heads)  # with `causal` no token looks at it
                result, weights = _attend(a, b, c, padding, causal)
                group.put(result, out)
                kept += (a, b, c, *weights)
        ctx.save_for_backward(*kept)
        ctx.lengths, ctx.causal, ctx.shapes = lengths, causal, (q.shape, k.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept = iter(ctx.saved_tensors)
        shape, kv_shape = ctx.shapes
        to_q, to_k, to_v = (grads[0].new_empty(each) for each in (shape, kv_shape, kv_shape))
        for group in _groups(ctx.lengths):
            q, k, v = (next(kept) for _ in range(3))
            blocks = [(next(kept), block, seen) for block, seen, _ in _blocks(q.shape[1], k.shape[1], ctx.causal)]
            found = _attend_backward(group.taken(grads[0], kv_shape[1]), q, k, v, blocks)
            for each, into in zip(found, (to_q, to_k, to_v), strict=True):
                group.put(each, into)
        return to_q, to_k, to_v, None, None


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, padding: torch.Tensor | None, causal: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """q [n, rows, d]; k and v [n, columns, d], a column a position; padding [n, 1, last columns] is added to
    the scores.

    What comes out [n, rows, d], and the softmax's weights of each block of rows."""
    (n, rows, d), columns = q.shape, k.shape[1]
    exact = torch.promote_types(q.dtype, torch.float32)
    a, b = (scratch(name, exact, *x.shape).copy_(x) for name, x in (("queries", q), ("keys", k)))
    a.mul_(d**-0.5)
    blocks = list(_blocks(rows, columns, causal))
    sizes = [n * (block.stop - block.start) * seen for block, seen, _ in blocks]
    all_weights = q.new_empty(rounded_up(sum(sizes)))[: sum(sizes)].split(sizes)
    out, kept = torch.empty_like(q), []
    for (block, seen, partly), flat in zip(blocks, all_weights, strict=True):
        height = block.stop - block.start
        weights = flat.view(n, height, seen)
        later = torch.ones(seen - partly, seen - partly, dtype=torch.bool).triu(1).repeat_interleave(rows // columns, 0)
        for tile in _tiles(n, height, seen):
            size = tile.stop - tile.start
            scores = scratch("scores", exact, size, height, seen)
            torch.bmm(a[tile, block], b[tile, :seen].transpose(1, 2), out=scores)
            if padding is not None and padding.shape[-1]:
                scores[:, :, -padding.shape[-1] :] += padding[tile]
            if causal:
                scores[:, :, partly:].masked_fill_(later, float("-inf"))
            weights[tile] = torch.softmax(scores, -1, out=scores)
            out[tile, block] = torch.bmm(weights[tile], v[tile, :seen], out=scratch("out", q.dtype, size, height, d))
        kept.append(weights)
    return out, kept


def _attend_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    blocks: list[tuple[torch.Tensor, slice, int]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """grad like q -> gradients of q, k and v; of each block its weights, its rows and how many columns they look at."""
    n, _, d = q.shape
    dtype, exact = q.dtype, torch.promote_types(q.dtype, torch.float32)
    to_q, to_k, to_v = (scratch(f"to {i}", exact, *x.shape).zero_() for i, x in enumerate((q, k, v)))
    for weights, block, seen in blocks:
        for tile in _tiles(n, block.stop - block.start, seen):
            own, here = weights[tile], grad[tile, block]
            towards, scores = (scratch(name, dtype, *own.shape) for name in ("towards", "gradients of scores"))
            torch.bmm(here, v[tile, :seen].transpose(1, 2), out=towards)
            # In one piece, with sums in float32: where a head looks at one key alone, the gradient of its scores is a
            # small difference, and rounding its terms apart leaves noise, which Muon would make as large as any signal.
            torch._softmax_backward_data(towards, own, -1, dtype, grad_input=scores)
            by_row, by_column = (scratch("part", dtype, len(own), side, d) for side in own.shape[1:])
            to_q[tile, block] = torch.bmm(scores, k[tile, :seen], out=by_row)
            to_k[tile, :seen] += torch.bmm(scores.transpose(1, 2), q[tile, block], out=by_column)
            to_v[tile, :seen] += torch.bmm(own.transpose(1, 2), here, out=by_column)
    return to_q.mul_(d**-0.5), to_k.mul_(d**-0.5), to_v
