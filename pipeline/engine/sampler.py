"""Logits -> one token a sequence, by each request's rules, wherever the logits are.

The order is vLLM's: penalties, forbidden tokens, temperature, min_p, top_k, top_p. Randomness is a
Philox counter keyed by the sequence's seed and addressed by the token's position (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011): a token depends on (seed, position), never on
who shares the batch, so a request can be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import GenerationFailed
from ..transfer import to_device
from ..types import Prompt, SampledLogprobs, SamplingParams, TokenLogprob
from .draw import Filters, draw, pick
from .penalties import adjusted, count
from .sequence import Sequence

GREEDY_BELOW = 1e-5  # such temperatures leave the best token nothing to compete with, and divide badly

BROKEN = -2
"""In place of a token: logits that are not finite numbers."""


@dataclass(frozen=True)
class Sample:
    token_id: int
    logprobs: SampledLogprobs | None


def uniform(seed_key: tuple[int, int], position: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    seed, choice = (part % 2**64 for part in seed_key)
    key = np.array([seed, choice], dtype=np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key, counter=position)).random())


class Sampler:
    def __init__(self, eos_ids: Ordered[int]) -> None:
        self.eos_ids = frozenset(eos_ids)

    def warm_up(self, vocab: int) -> None:
        """Compiles the CPU's kernel, or loads it, by drawing a token."""
        anyone = Sequence(-1, Prompt([0]), SamplingParams(temperature=1.0), 1, (0, 0), frozenset())
        self.sample(torch.zeros((1, vocab)), [anyone])

    def sample(self, logits: torch.Tensor, sequences: Ordered[Sequence]) -> list[Sample | GenerationFailed]:
        """logits: float32 [N, vocab], under the raw model -> what each sequence says next, or that its logits are not
        finite.

        The host waits for the device once; again only for log-probabilities, and for the rare draw that one look at the
        most probable tokens doesn't settle.
        """
        scores = adjusted(logits, sequences, self.eos_ids)
        drawn = [row for row, sequence in enumerate(sequences) if sequence.params.temperature >= GREEDY_BELOW]
        filters = _filters([sequences[row] for row in drawn])
        if len(drawn) == len(sequences):
            best = pick(scores, filters)
        else:
            best = _argmax(scores)
            if drawn:
                rows = to_device(drawn, torch.int64, logits.device)
                scores = scores[rows]
                best[rows] = pick(scores, filters)
        finite = logits.amax(-1).isfinite() & logits.amin(-1).isfinite()
        tokens: list[int] = torch.where(finite, best, BROKEN).tolist()
        for row, token in zip(drawn, draw(scores, filters, [tokens[row] for row in drawn]), strict=True):
            tokens[row] = token
        logprobs = _logprobs(logits, tokens, sequences)
        samples: list[Sample | GenerationFailed] = []
        for row, (token, sequence) in enumerate(zip(tokens, sequences, strict=True)):
            if token == BROKEN:
                samples.append(GenerationFailed("the model gave logits that are not finite numbers"))
                continue
            count(sequence, token)
            samples.append(Sample(token, logprobs.get(row)))
        return samples


def _argmax(scores: torch.Tensor) -> torch.Tensor:
    """The first of the largest in each row. On a CPU torch's own takes twelve times as long as numpy's."""
    return torch.from_numpy(scores.numpy().argmax(-1)) if scores.is_cpu else scores.argmax(-1)


def _filters(sequences: list[Sequence]) -> Filters:
    params = [sequence.params for sequence in sequences]
    return Filters(
        shares=[uniform(sequence.seed_key, sequence.length) for sequence in sequences],
        temperatures=[p.temperature for p in params],
        top_k=[p.top_k for p in params],
        top_p=[p.top_p for p in params],
        min_p=[p.min_p for p in params],
    )


def _logprobs(logits: torch.Tensor, tokens: list[int], sequences: Ordered[Sequence]) -> dict[int, SampledLogprobs]:
    """By row, of those that ask for them."""
    asked = [
        (row, token, s.params.logprobs)
        for row, (token, s) in enumerate(zip(tokens, sequences, strict=True))
        if s.params.logprobs is not None and token != BROKEN
    ]
    if not asked:
        return {}
    rows, chosen, counts = zip(*asked, strict=True)
    every = logits[to_device(rows, torch.int64, logits.device)].log_softmax(-1)
    values, ids = every.topk(min(max(counts), every.shape[-1]))
    of_chosen = every.gather(-1, to_device(chosen, torch.int64, logits.device)[:, None])
    result = {}
    for row, token, most, best, names, (own,) in zip(
        rows, chosen, counts, values.tolist(), ids.tolist(), of_chosen.tolist(), strict=True
    ):
        top = tuple(TokenLogprob(i, value) for i, value in zip(names[:most], best[:most], strict=True))
        result[row] = SampledLogprobs(TokenLogprob(token, own), top)
    return result
