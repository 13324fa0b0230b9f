"""One sequence on its way through the engine: its tokens, its blocks, how far it is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..types import FinishReason, Prompt, SamplingParams


@dataclass(eq=False)
class Sequence:
    """`computed` tokens, counted from the start, have their keys and values in the cache.

    The token that was sampled last is known but not computed; a preempted sequence knows all its
    tokens and has computed none.
    """

    id: int
    prompt: Prompt
    params: SamplingParams
    max_tokens: int
    seed_key: tuple[int, int]
    stop_ids: frozenset[int]
    output: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)  # of its first full blocks, see `prefix`
    computed: int = 0
    found: int = 0  # tokens that needn't be computed when it was first admitted, since they were in the cache
    preemptions: int = 0
    finish_reason: FinishReason | None = None
    sampler_state: Any = None  # the sampler's counts of this sequence's tokens

    @property
    def length(self) -> int:
        return len(self.prompt.token_ids) + len(self.output)

    @property
    def remaining(self) -> int:
        """Tokens that are known but not computed: 1 while decoding, more while prefilling."""
        return self.length - self.computed

    @property
    def max_length(self) -> int:
        """The most positions that this sequence can ever fill in the cache."""
        return len(self.prompt.token_ids) + self.max_tokens

    def tokens(self, start: int, stop: int) -> list[int]:
        n = len(self.prompt.token_ids)
        return self.prompt.token_ids[start:stop] + self.output[max(start - n, 0) : max(stop - n, 0)]

    def finished_by(self, token_id: int) -> FinishReason | None:
        """Why `token_id`, just appended to `output`, ends the sequence, if it does."""
        if token_id in self.stop_ids and len(self.output) > self.params.min_tokens:
            return "stop"
        return "length" if len(self.output) >= self.max_tokens else None
