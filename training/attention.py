"""Attention for training on CPUs that multiply in bfloat16."""

from __future__ import annotations

import torch

from pipeline.model.attention import Packing, TorchAttention


class MatmulAttention(TorchAttention):
    """`varlen` as two batched products and a softmax, over sequences padded to the longest.

    torch's fused attention computes in float32 inside on CPU; where the processor has bfloat16
    products this is 2.5 times faster under autocast, at the price of the scores' memory.
    """

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        lengths, longest = torch.tensor(packing.lengths), max(packing.lengths)
        inside = torch.arange(longest) < lengths[:, None]  # [sequences, longest]
        uniform = bool(inside.all())
        groups = q.shape[1] // k.shape[1]

        def padded(x: torch.Tensor) -> torch.Tensor:  # [T, heads, d] -> [sequences, heads, longest, d]
            if uniform:
                return x.unflatten(0, (-1, longest)).transpose(1, 2)
            out = x.new_zeros(len(lengths), longest, *x.shape[1:])
            return out.masked_scatter(inside[..., None, None], x).transpose(1, 2)

        # Query heads that share a KV head stand below each other: one product serves them all.
        a = padded(q).unflatten(1, (-1, groups)).flatten(2, 3)  # [sequences, KV heads, groups * longest, d]
        b, c = padded(k), padded(v)
        scores = (a @ b.transpose(-1, -2)).unflatten(2, (groups, longest)) * q.shape[-1] ** -0.5
        if causal:  # padding stands behind, where no real token looks
            scores = scores.masked_fill(torch.ones(longest, longest, dtype=torch.bool).triu(1), float("-inf"))
        elif not uniform:
            scores = scores.masked_fill(~inside[:, None, None, None], float("-inf"))
        weights = torch.softmax(scores, -1, dtype=scores.dtype)
        out = (weights.flatten(2, 3) @ c).unflatten(2, (groups, longest))  # [sequences, KV, groups, longest, d]
        out = out.flatten(1, 2).transpose(1, 2)
        return out.flatten(0, 1) if uniform else out[inside]
