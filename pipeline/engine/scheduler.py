"""Which sequences compute how many tokens in the next step. Holds no tensors.

First come, first served. Every answer under way gets its token in each step; what `TokenBudget` leaves computes prompts
in chunks, the oldest first, so that a long prompt never stalls running answers, nor they it. A prompt begins with what
other sequences have left in the cache; where one is about to compute what it needs, it waits for that. When blocks run
out, the sequence that came last is preempted: its blocks are freed and it is computed again later. The oldest sequence
always advances, so everything admitted ends.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass

from ..errors import Overloaded
from ..types import FinishReason
from .blocks import BlockManager
from .budget import TokenBudget
from .sequence import Sequence


@dataclass(frozen=True)
class Chunk:
    """Compute tokens [start, stop) of a sequence; `samples` when they reach its last known token."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def samples(self) -> bool:
        return self.stop == self.sequence.length

    @property
    def decodes(self) -> bool:
        """Whether it continues an answer, however short a prompt's chunk may be. Asked before the step."""
        return self.length == 1 and self.samples and bool(self.sequence.output)


class Scheduler:
    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_batch_tokens: int,
        max_running: int,
        max_waiting: int,
        step_seconds: float | None = None,
    ) -> None:
        assert max_batch_tokens >= max_running > 0, "each running sequence needs one token of the budget"
        self.blocks, self.budget = blocks, TokenBudget(max_batch_tokens, step_seconds)
        self.max_running, self.max_waiting = max_running, max_waiting
        self.waiting: deque[Sequence] = deque()  # in order of arrival (= id)
        self.running: list[Sequence] = []  # likewise
        self.preemptions = 0

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence. Raises Overloaded when as many run and wait as may; those that come between two steps
        wait until the next, though they may run then."""
        assert self.blocks.can_ever_hold(sequence.max_length), "the engine refuses these at its door"
        if len(self.waiting) + len(self.running) >= self.max_running + self.max_waiting:
            raise Overloaded(f"{len(self.running)} sequences are running and {len(self.waiting)} waiting already")
        self.waiting.append(sequence)

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step, decodes first. Empty only when nothing is left to do."""
        chunks: list[Chunk] = []
        preempted = False
        decoding = [s for s in self.running if s.remaining == 1]
        prefilling = [s for s in self.running if s.remaining > 1]
        budget = len(decoding) + self.budget.prefill(len(decoding))
        for sequence in decoding + prefilling:
            if sequence not in self.running:  # preempted a moment ago
                continue
            count = min(sequence.remaining, budget)
            if count == 0:
                break
            if not self._make_room(sequence, sequence.computed + count):
                preempted = True
                continue
            chunks.append(Chunk(sequence, sequence.computed, sequence.computed + count))
            budget -= count
        chunks = [chunk for chunk in chunks if chunk.sequence in self.running]
        if not preempted:
            self._admit(chunks, budget)
        assert chunks or self.idle, "work is left, but none was scheduled"
        return chunks

    def finish(self, sequence: Sequence, reason: FinishReason, *, forget: bool = False) -> None:
        """Ends a sequence, wherever it is, and frees its blocks. Each sequence ends once. `forget`: what it computed is
        not to be found by others."""
        assert sequence.finish_reason is None, "a sequence ended twice"
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self.blocks.release(sequence, forget=forget)
        sequence.finish_reason = reason

    def _admit(self, chunks: list[Chunk], budget: int) -> None:
        while self.waiting and budget and len(self.running) < self.max_running:
            sequence = self.waiting[0]
            found = self.blocks.find(sequence)
            # Room for the whole prompt, not only its first chunk: or it would soon preempt itself.
            no_room = self.blocks.missing(sequence, sequence.length) > self.blocks.free
            if no_room or self._in_the_making(sequence):
                self.blocks.release(sequence)
                return
            self.waiting.popleft()
            insort(self.running, sequence, key=lambda s: s.id)
            sequence.computed = found
            if not sequence.preemptions:
                sequence.found = found
            count = min(sequence.remaining, budget)
            self.blocks.extend(sequence, found + count)
            chunks.append(Chunk(sequence, found, found + count))
            budget -= count

    def _in_the_making(self, sequence: Sequence) -> bool:
        """Whether an older sequence is about to compute the very block that this one would begin with."""
        at = len(sequence.blocks)
        end = (at + 1) * self.blocks.block_size
        return end <= sequence.length and any(
            other.names[at : at + 1] == sequence.names[at : at + 1] != [] and other.computed < end
            for other in self.running
        )

    def _make_room(self, sequence: Sequence, tokens: int) -> bool:
        """Gives `sequence` blocks for `tokens` tokens, from later arrivals if need be. False when
        it was itself the last to arrive and had to go."""
        while self.blocks.missing(sequence, tokens) > self.blocks.free:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        self.blocks.extend(sequence, tokens)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.blocks.release(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self.waiting = deque(sorted([sequence, *self.waiting], key=lambda s: s.id))
