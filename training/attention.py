"""Attention for training on CPUs that multiply in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pipeline.model.attention import Packing, TorchAttention

from .hardware import rounded_up

TILE = 1 << 22
"""Bytes of scores at a time. Those of all sequences at once don't stay in a core's cache: with them a step of the
default checkpoint's decoder took 1.06 to 1.18 times as long."""

BLOCK = 64
"""Positions at a time of a causal sequence: what stands after the last of them is not computed."""


class MatmulAttention(TorchAttention):
    """`varlen` as two batched products and a softmax, over groups of sequences of like lengths.

    torch's fused attention is faster on CPU but for its gradients: where the processor has bfloat16 products, a step of
    the default checkpoint's decoder under autocast takes 1.5 s with this and 3.1 s with that, at the price of the
    weights' memory.
    """

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        starts = torch.tensor((0, *packing.lengths)).cumsum(0)
        outs, places = [], []
        for group in _alike(packing.lengths):
            lengths = torch.tensor([packing.lengths[i] for i in group])
            within = torch.arange(rounded_up(int(lengths.max())))
            inside = within < lengths[:, None]  # [sequences, longest]
            rows = (starts[group][:, None] + within).clamp(max=len(q) - 1)  # padding repeats other tokens
            a, b, c = (x.index_select(0, rows.flatten()).unflatten(0, rows.shape) for x in (q, k, v))
            out = _attend(a, b, c, None if inside.all() else inside, causal)
            outs.append(out[inside])
            places.append(rows[inside])
        if len(outs) == 1 and list(packing.lengths) == sorted(packing.lengths):
            return outs[0]
        return torch.cat(outs)[torch.cat(places).argsort()]


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Sequences by rising length, in groups whose longest is at most a quarter (and 16) over the shortest."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    group: list[int] = []
    for i in order:
        if group and lengths[i] > 1.25 * lengths[group[0]] + 16:
            yield group
            group = []
        group.append(i)
    yield group


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, inside: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    """q [n, length, heads, d], k and v [n, length, KV heads, d] -> like q; `inside` is false at padding."""
    n, length, heads, d = q.shape
    kv = k.shape[2]
    group = heads // kv
    # The query heads that share a KV head stand below each other at each position: one product serves them all.
    a = q.unflatten(2, (kv, group)).transpose(1, 2).reshape(n * kv, length * group, d)
    b, c = (x.transpose(1, 2).reshape(n * kv, length, d) for x in (k, v))
    padding = None
    if not causal and inside is not None:  # with `causal` it stands behind, where no real token looks
        padding = torch.zeros(n, 1, length).masked_fill_(~inside[:, None], float("-inf"))
        padding = padding.repeat_interleave(kv, dim=0)
    out: torch.Tensor = _Attention.apply(a, b, c, padding, causal)  # type: ignore[no-untyped-call]
    return out.view(n, kv, length, group, d).transpose(1, 2).flatten(2, 3)


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
    """softmax(q kᵀ / √d + padding) v, and its gradients.

    Scores and their softmax are of float32: a bfloat16 score near 40 is up to 0.13 off, and its weight by an eighth.
    The rest is in the inputs' type: on a CPU with bfloat16 products the time goes into memory.
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, padding: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        """q [n, rows, d]; k and v [n, columns, d], a column a position; padding [n, 1, columns] -> [n, rows, d]"""
        n, rows, d = q.shape
        columns = k.shape[1]
        exact = torch.promote_types(q.dtype, torch.float32)
        out, kept = torch.empty_like(q), []
        with torch.autocast("cpu", enabled=False):
            a, b = q.to(exact) * d**-0.5, k.to(exact).transpose(1, 2)
            for block, seen, partly in _blocks(rows, columns, causal):
                height = block.stop - block.start
                weights = q.new_empty(n, height, seen)
                later = torch.ones(seen - partly, seen - partly).triu(1).bool().repeat_interleave(rows // columns, 0)
                for tile in _tiles(n, height, seen):
                    scores = torch.bmm(a[tile, block], b[tile, :, :seen])
                    if padding is not None:
                        scores += padding[tile]
                    if causal:
                        scores[:, :, partly:].masked_fill_(later, float("-inf"))
                    weights[tile] = torch.softmax(scores, -1)
                    out[tile, block] = torch.bmm(weights[tile], v[tile, :seen])
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        n, rows, d = q.shape
        grad, to_q = grads[0], torch.empty_like(q)
        exact = torch.promote_types(q.dtype, torch.float32)
        to_k, to_v = (torch.zeros_like(x, dtype=exact) for x in (k, v))
        for weights, (block, seen, _) in zip(kept, _blocks(rows, k.shape[1], ctx.causal), strict=True):
            for tile in _tiles(n, block.stop - block.start, seen):
                own, here = weights[tile], grad[tile, block]
                towards = torch.bmm(here, v[tile, :seen].transpose(1, 2))
                # In one piece, with sums in float32: where a head looks at one key alone, the gradient of its scores
                # is a small difference, and rounding its terms apart leaves noise, which Muon would make as large as
                # any signal.
                scores = torch._softmax_backward_data(towards, own, -1, own.dtype)
                to_q[tile, block] = torch.bmm(scores, k[tile, :seen])
                to_k[tile, :seen] += torch.bmm(scores.transpose(1, 2), q[tile, block])
                to_v[tile, :seen] += torch.bmm(own.transpose(1, 2), here)
        return to_q.mul_(d**-0.5), to_k.mul_(d**-0.5).to(k.dtype), to_v.to(v.dtype), None, None
