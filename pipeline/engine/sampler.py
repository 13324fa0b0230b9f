"""Logits -> one token, by the request's rules.

The order is vLLM's: penalties, forbidden tokens, temperature, min_p, top_k, top_p. Randomness is a
Philox counter keyed by the sequence's seed and addressed by the token's position (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011): a token depends on (seed, position), never on
who shares the batch, so a request can be replayed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import GenerationFailed
from ..types import SampledLogprobs, TokenLogprob
from .draw import draw
from .sequence import Sequence

GREEDY_BELOW = 1e-5  # such temperatures leave the best token nothing to compete with, and divide badly


@dataclass(frozen=True)
class Sample:
    token_id: int
    logprobs: SampledLogprobs | None


@dataclass
class TokenCounts:
    """What the penalties look at. Media placeholders are no text and don't count."""

    prompt: frozenset[int]
    output: Counter[int]


def uniform(seed_key: tuple[int, int], position: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    seed, choice = (part % 2**64 for part in seed_key)
    key = np.array([seed, choice], dtype=np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key, counter=position)).random())


class Sampler:
    def __init__(self, eos_ids: Ordered[int]) -> None:
        self.eos_ids = frozenset(eos_ids)

    def sample(self, logits: torch.Tensor, sequence: Sequence) -> Sample:
        """logits: float32 [vocab], under the raw model. Raises GenerationFailed if not finite."""
        params = sequence.params
        # The sum of finite numbers is finite, but for very large ones; it takes a tenth of the time.
        if not math.isfinite(logits.sum()) and not torch.isfinite(logits).all():
            raise GenerationFailed("the model gave logits that are not finite numbers")
        scores = self._penalized(logits, sequence)
        if len(sequence.output) < params.min_tokens:
            scores = _forbid(scores, sequence.stop_ids | self.eos_ids)
        if params.temperature < GREEDY_BELOW:
            token = int(scores.argmax())
        else:
            share = uniform(sequence.seed_key, sequence.length)
            scores = (scores - scores.max()) / params.temperature
            token = draw(scores, share, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p)
        self._count(sequence, token)
        return Sample(token, _logprobs(logits, token, params.logprobs))

    def _penalized(self, logits: torch.Tensor, sequence: Sequence) -> torch.Tensor:
        params = sequence.params
        if params.repetition_penalty == 1 and params.presence_penalty == 0 and params.frequency_penalty == 0:
            return logits
        counts = self._counts(sequence)
        scores = logits.clone()
        if params.repetition_penalty != 1:
            seen = torch.tensor(sorted(counts.prompt | counts.output.keys()), dtype=torch.long, device=scores.device)
            old = scores[seen]
            scores[seen] = torch.where(old > 0, old / params.repetition_penalty, old * params.repetition_penalty)
        if counts.output:
            ids = torch.tensor(list(counts.output), device=scores.device)
            times = torch.tensor(list(counts.output.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= params.presence_penalty + params.frequency_penalty * times
        return scores

    def _counts(self, sequence: Sequence) -> TokenCounts:
        if sequence.sampler_state is None:
            media = {i for span in sequence.prompt.spans for i in range(span.start, span.start + span.length)}
            text = (t for i, t in enumerate(sequence.prompt.token_ids) if i not in media)
            sequence.sampler_state = TokenCounts(frozenset(text), Counter(sequence.output))
        counts: TokenCounts = sequence.sampler_state
        return counts

    def _count(self, sequence: Sequence, token: int) -> None:
        if sequence.sampler_state is not None:
            sequence.sampler_state.output[token] += 1


def _forbid(scores: torch.Tensor, ids: frozenset[int]) -> torch.Tensor:
    scores = scores.clone()
    scores[torch.tensor(sorted(i for i in ids if i < len(scores)), dtype=torch.long, device=scores.device)] = -torch.inf
    return scores


def _logprobs(logits: torch.Tensor, token: int, count: int | None) -> SampledLogprobs | None:
    if count is None:
        return None
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    top = tuple(TokenLogprob(int(i), float(v)) for i, v in zip(ids, values, strict=True))
    return SampledLogprobs(TokenLogprob(token, float(logprobs[token])), top)
