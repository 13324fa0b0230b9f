"""Draws a token from scores by the filters min_p, top_k and top_p, without sorting the vocabulary.

Tokens are taken in order of probability until the sum of their probabilities reaches the random share (inverse
transform sampling). The most probable few nearly always hold it; where they don't, more are looked at.
"""

from __future__ import annotations

import torch

FIRST_LOOK = 64
"""Of the most probable tokens; then 16 times as many, and so on."""


def draw(scores: torch.Tensor, share: float, *, top_k: int, top_p: float, min_p: float) -> int:
    """scores: float32 [vocab], the temperature applied; `share` from 0 to 1; top_k 0 filters nothing."""
    size = len(scores)
    limited = 0 < top_k < size
    count = top_k if limited else min(FIRST_LOOK, size)
    highest = scores.max()
    # Of all that top_k and min_p leave, float64: what the sums below are compared with.
    everything = None if limited else _kept((scores - highest).double().exp(), min_p).sum()
    while True:
        values, ids = scores.topk(count) if count < size else scores.sort(descending=True, stable=True)
        weights = _kept((values - highest).double().exp(), min_p)
        sums = weights.cumsum(-1)
        total = sums[-1] if limited or count == size else everything
        assert total is not None
        mass = total
        if top_p < 1:  # those before which less than top_p of the whole has been taken
            inside = (sums - weights < top_p * total) & (weights > 0)
            last = max(int(torch.count_nonzero(inside)), 1) - 1
            mass = sums[last]
            known = limited or count == size or last + 1 < count
        else:
            last, known = count - 1, True
        chosen = int(torch.searchsorted(sums, share * mass, right=True))
        if known and (chosen < count or limited or count == size):
            positive = int(torch.count_nonzero(weights[: last + 1]))
            return int(ids[min(chosen, last, max(positive - 1, 0))])
        count = min(16 * count, size)


def _kept(weights: torch.Tensor, min_p: float) -> torch.Tensor:
    """Relative to the largest, which is 1: those below min_p don't count."""
    return torch.where(weights >= min_p, weights, 0.0) if min_p > 0 else weights
