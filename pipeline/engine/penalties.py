"""What a request's rules make of its logits before a token is chosen: penalties, ends that are forbidden for now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import torch

from ..transfer import to_device
from .sequence import Sequence

Place = tuple[int, int]
"""A row of the logits, a token."""


@dataclass
class TokenCounts:
    """What the penalties look at. Media placeholders are no text and don't count."""

    prompt: frozenset[int]
    output: Counter[int]


def adjusted(logits: torch.Tensor, sequences: Ordered[Sequence], eos_ids: frozenset[int]) -> torch.Tensor:
    """[N, vocab], a row a sequence -> scores; the logits themselves where no rule applies, never written to."""
    repeated: dict[Place, float] = {}
    counted: dict[Place, float] = {}
    forbidden: list[Place] = []
    for row, sequence in enumerate(sequences):
        params = sequence.params
        if params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0:
            counts = _counts(sequence)
            if params.repetition_penalty != 1:
                seen = counts.prompt | counts.output.keys()
                repeated |= {(row, token): params.repetition_penalty for token in seen}
            for token, times in counts.output.items():
                counted[row, token] = params.presence_penalty + params.frequency_penalty * times
        if len(sequence.output) < params.min_tokens:
            forbidden += [(row, token) for token in sequence.stop_ids | eos_ids if token < logits.shape[-1]]
    if not repeated and not counted and not forbidden:
        return logits
    scores = logits.clone()
    if repeated:
        at, penalties = _index(list(repeated), scores), to_device(list(repeated.values()), scores.dtype, scores.device)
        old = scores[at]
        scores[at] = torch.where(old > 0, old / penalties, old * penalties)
    if counted:
        scores[_index(list(counted), scores)] -= to_device(list(counted.values()), scores.dtype, scores.device)
    if forbidden:
        scores[_index(forbidden, scores)] = -torch.inf
    return scores


def count(sequence: Sequence, token: int) -> None:
    """Remembers a token that was chosen, where a penalty will ask for it."""
    if sequence.sampler_state is not None:
        sequence.sampler_state.output[token] += 1


def _counts(sequence: Sequence) -> TokenCounts:
    if sequence.sampler_state is None:
        media = {i for span in sequence.prompt.spans for i in range(span.start, span.start + span.length)}
        text = (t for i, t in enumerate(sequence.prompt.token_ids) if i not in media)
        sequence.sampler_state = TokenCounts(frozenset(text), Counter(sequence.output))
    counts: TokenCounts = sequence.sampler_state
    return counts


def _index(places: list[Place], scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, tokens = zip(*places, strict=True)
    return to_device(rows, torch.int64, scores.device), to_device(tokens, torch.int64, scores.device)
