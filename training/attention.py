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
    # Query heads that share a KV head stand below each other: one product serves them all.
    a = q.unflatten(2, (kv, group)).permute(0, 2, 3, 1, 4).reshape(n * kv, group * length, d)
    b, c = (x.transpose(1, 2).reshape(n * kv, length, d) for x in (k, v))
    bias = None
    if causal:  # padding stands behind, where no real token looks
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        bias = torch.zeros(length, length).masked_fill_(later, float("-inf")).repeat(group, 1)
    elif inside is not None:
        bias = torch.zeros(n, 1, length).masked_fill_(~inside[:, None], float("-inf"))
        bias = bias.repeat_interleave(kv, dim=0)
    out: torch.Tensor = _Attention.apply(a, b, c, bias)  # type: ignore[no-untyped-call]
    return out.view(n, kv, group, length, d).permute(0, 3, 1, 2, 4).flatten(2, 3)


class _Attention(torch.autograd.Function):
    """softmax(q kᵀ / √d + bias) v, and its gradients.

    Scores and their softmax are of float32: a bfloat16 score near 40 is up to 0.13 off, and its weight by an eighth.
    The rest is in the inputs' type: on a CPU with bfloat16 products the time goes into memory. So scores of a few
    sequences at a time are kept, in the same TILE bytes.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """q [n, rows, d], k and v [n, columns, d], bias broadcast to [n, rows, columns] -> [n, rows, d]"""
        n, rows, d = q.shape
        columns, scale = k.shape[1], d**-0.5
        exact = torch.promote_types(q.dtype, torch.float32)
        weights, out = q.new_empty(n, rows, columns), torch.empty_like(q)
        with torch.autocast("cpu", enabled=False):
            a, b = q.to(exact) * scale, k.to(exact).transpose(1, 2)
            bias = torch.zeros(1, 1, 1) if bias is None else bias
            bias = bias.to(exact).expand(n, rows, columns)
            scores = q.new_empty(2, max(TILE // (4 * rows * columns), 1), rows, columns, dtype=exact)
            for i in range(0, n, scores.shape[1]):
                tile = slice(i, i + scores.shape[1])
                before, after = scores[:, : len(a[tile])]
                torch.baddbmm(bias[tile], a[tile], b[tile], out=before)
                weights[tile] = torch.softmax(before, -1, out=after)
                torch.bmm(weights[tile], v[tile], out=out[tile])
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        grad = grads[0].contiguous()
        towards = torch.bmm(grad, v.transpose(1, 2))
        # In one piece, with sums in float32: where a head looks at one key alone, the gradient of its scores is a small
        # difference, and rounding its terms apart leaves noise, which Muon would make as large as any signal.
        scores = torch._softmax_backward_data(towards, weights, -1, weights.dtype)
        return (
            torch.bmm(scores, k).mul_(ctx.scale),
            torch.bmm(scores.transpose(1, 2), q).mul_(ctx.scale),
            torch.bmm(weights.transpose(1, 2), grad),
            None,
        )
