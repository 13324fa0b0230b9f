"""How many tokens of prompts a step may compute, so that answers under way are not kept waiting. Holds no tensors.

What a step takes is learnt from the steps that were taken: a step of decodes, and one more token of a prompt. Both
change with the number of sequences and the length of their contexts, so that recent steps count most.
"""

from __future__ import annotations

MEMORY = 0.8
"""Of a measured time this much of the former ones remains: some five steps back still count."""

SMALLEST_SHARE = 0.25
"""Prompts get at least this much of the time that a step's decodes take: they advance, however short the limit is."""

FIRST_CHUNK = 16

SMALLEST_CHUNK = 8
"""Tokens of a prompt; fewer take about as long, since most of it goes into reading weights, keys and values. After
3,000 tokens and beside four answers: 16 ms for one, 18 ms for 8 (SmolLM2-135M, two cores)."""

LEAST_SECONDS = 1e-6
"""A prompt's chunk costs something, even where a step with it happened to take no longer than one without."""


class TokenBudget:
    """At most `max_tokens` a step; and, while answers are under way, as many as are expected to let it end within
    `step_seconds` (None: as many as there may be)."""

    def __init__(self, max_tokens: int, step_seconds: float | None = None) -> None:
        self.max_tokens, self.step_seconds = max_tokens, step_seconds
        self._decode_seconds: float | None = None  # of a step of decodes alone
        self._token_seconds: float | None = None  # of one more token of a prompt

    def prefill(self, decodes: int) -> int:
        """Tokens of prompts for a step that has `decodes` sequences under way."""
        room = self.max_tokens - decodes
        if not decodes or self.step_seconds is None:
            return room
        if self._token_seconds is None or self._decode_seconds is None:
            return min(room, FIRST_CHUNK)  # to begin with, something that is quickly measured
        seconds = max(self.step_seconds - self._decode_seconds, SMALLEST_SHARE * self._decode_seconds)
        return min(room, max(int(seconds / self._token_seconds), SMALLEST_CHUNK))

    def observe(self, decodes: int, prefill: int, seconds: float) -> None:
        """What a step took that computed so many decodes and tokens of prompts."""
        if not prefill:
            self._decode_seconds = _mix(self._decode_seconds, seconds)
            return
        if decodes and self._decode_seconds is None:
            if self._token_seconds is not None:  # known from a step without decodes
                self._decode_seconds = max(seconds - prefill * self._token_seconds, 0.0)
            return
        if prefill < SMALLEST_CHUNK:
            return  # as long as more would have taken: it tells little of what each one costs
        beyond = seconds - (self._decode_seconds or 0.0) if decodes else seconds
        self._token_seconds = _mix(self._token_seconds, max(beyond, LEAST_SECONDS) / prefill)


def _mix(before: float | None, now: float) -> float:
    return now if before is None else MEMORY * before + (1 - MEMORY) * now
