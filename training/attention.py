"""Attention for training on CPUs that multiply in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pipeline.model.attention import Packing, TorchAttention


class MatmulAttention(TorchAttention):
    """`varlen` as two batched products and a softmax, over groups of sequences of like lengths.

    torch's fused attention computes in float32 inside on CPU; where the processor has bfloat16
    products this is 2.5 times faster under autocast, at the price of the scores' memory.
    """

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        starts = torch.tensor((0, *packing.lengths)).cumsum(0)
        outs, places = [], []
        for group in _alike(packing.lengths):
            lengths = torch.tensor([packing.lengths[i] for i in group])
            within = torch.arange(int(lengths.max()))
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
    # Query heads that share a KV head stand below each other: one product serves them all.
    a = (q * d**-0.5).transpose(1, 2).reshape(n, kv, heads // kv * length, d)
    b, c = k.transpose(1, 2), v.transpose(1, 2)
    scores = (a @ b.transpose(-1, -2)).unflatten(2, (-1, length))  # [n, KV heads, group, length, length]
    if causal:  # padding stands behind, where no real token looks
        scores.masked_fill_(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
    elif inside is not None:
        scores.masked_fill_(~inside[:, None, None, None], float("-inf"))
    weights = torch.softmax(scores, -1, dtype=scores.dtype).flatten(2, 3)
    return (weights @ c).unflatten(2, (-1, length)).flatten(1, 2).transpose(1, 2)
