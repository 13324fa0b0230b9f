"""Draws tokens from scores by the filters min_p, top_k and top_p, without sorting the vocabulary.

Tokens are taken in order of probability until the sum of their probabilities reaches the random share (inverse
transform sampling). On a CPU a kernel of `pipeline.native` finds the one. Elsewhere the most probable few nearly
always hold it; where they don't, more are looked at. One look asks nothing of the host: on a GPU it is queued behind
the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..native.compiled import choose
from ..native.draw import UNRESOLVED, Rules
from ..transfer import to_device

FIRST_LOOK, WIDER = 64, 16
"""Of the most probable tokens; then 16 times as many, and so on."""


@dataclass(frozen=True)
class Filters:
    """For each row of scores: what they are divided by, what is left to draw from then, and the random share, from 0 to
    1. top_k 0 filters nothing."""

    shares: list[float]
    temperatures: list[float]
    top_k: list[int]
    top_p: list[float]
    min_p: list[float]

    def of(self, rows: list[int]) -> Filters:
        return Filters(*([column[row] for row in rows] for column in vars(self).values()))


def pick(scores: torch.Tensor, filters: Filters) -> torch.Tensor:
    """scores: float32 [N, vocab] -> int64 [N]: each row's token, or UNRESOLVED."""
    if not scores.is_cpu:
        return look(scores, filters)
    rows = np.ascontiguousarray(scores.numpy())
    count, vocab = rows.shape
    out, weights, places = np.empty(count, np.int64), np.empty(vocab, np.float32), np.empty(vocab, np.int32)
    columns = vars(filters) | {"top_k": [min(k, vocab) for k in filters.top_k]}
    rules = Rules(
        **{name: np.array(column, np.int64 if name == "top_k" else np.float64) for name, column in columns.items()}
    )
    choose(rows, rows.max(-1), rows.min(-1), rules, weights, places, out)
    return torch.from_numpy(out)


def look(scores: torch.Tensor, filters: Filters, count: int = FIRST_LOOK) -> torch.Tensor:
    """scores: float32 [N, vocab] -> int64 [N]: each row's token, or UNRESOLVED where its `count` most probable ones
    don't tell."""
    size, device = scores.shape[-1], scores.device
    limits = [k if 0 < k < size else size for k in filters.top_k]
    count = min(max([count, *(k for k in limits if k < size)]), size)
    limit = to_device(limits, torch.int64, device)[:, None]
    temperature, top_p, min_p, share = (
        to_device(column, torch.float64, device)[:, None]
        for column in (filters.temperatures, filters.top_p, filters.min_p, filters.shares)
    )
    values, ids = scores.topk(count) if count < size else scores.sort(descending=True, stable=True)
    highest = values[:, :1]
    weights = ((values - highest).double() / temperature).exp()
    weights = weights.masked_fill((weights < min_p) | (torch.arange(count, device=device) >= limit), 0.0)
    sums = weights.cumsum(-1)
    complete = (limit <= count) | (count == size)  # nothing that can be drawn lies beyond
    total = sums[:, -1:]
    if count < size and max(limits) == size:
        everything = (scores - highest).div_(temperature.float()).exp_()
        if any(filters.min_p):
            everything *= everything >= min_p
        total = torch.where(complete, total, everything.sum(-1, keepdim=True, dtype=torch.float64))
    # Those before which less than top_p of the whole has been taken; the first one always.
    inside = ((sums - weights < top_p * total) & (weights > 0)).sum(-1, keepdim=True).clamp(min=1)
    inside = torch.where(top_p < 1, inside, count)
    mass = torch.where(top_p < 1, sums.gather(-1, inside - 1), total)
    chosen = torch.searchsorted(sums, share * mass, right=True)
    known = complete | ((chosen < count) & ((top_p >= 1) | (inside < count)))
    last = torch.minimum(inside, (weights > 0).sum(-1, keepdim=True)).clamp(min=1) - 1
    token = ids.gather(-1, torch.minimum(chosen, last))
    return torch.where(known, token, UNRESOLVED)[:, 0]


def draw(scores: torch.Tensor, filters: Filters, seen: list[int], already: int = FIRST_LOOK) -> list[int]:
    """The tokens `seen` by a look at `already` of them, with those that it left UNRESOLVED found by wider ones."""
    while rows := [row for row, token in enumerate(seen) if token == UNRESOLVED]:
        already *= WIDER
        found = look(scores[to_device(rows, torch.int64, scores.device)], filters.of(rows), already).tolist()
        for row, token in zip(rows, found, strict=True):
            seen[row] = token
    return seen
