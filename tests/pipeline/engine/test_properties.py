"""Scheduler and block manager through random arrivals, aborts and steps, without a model.

A memory in place of the model's: each slot holds what was written into it, so that a block that is shared or found
again must hold exactly what its sequence would have computed.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.engine.blocks import BlockManager
from pipeline.engine.scheduler import Scheduler
from pipeline.engine.sequence import Sequence
from pipeline.errors import Overloaded
from pipeline.types import Prompt, SamplingParams


class Machine(RuleBasedStateMachine):
    @initialize(
        num_blocks=st.integers(1, 12),
        block_size=st.integers(1, 5),
        max_running=st.integers(1, 5),
        spare=st.integers(0, 12),
        max_waiting=st.integers(1, 6),
        sharing=st.booleans(),
    )
    def build(
        self, num_blocks: int, block_size: int, max_running: int, spare: int, max_waiting: int, sharing: bool
    ) -> None:
        self.blocks = BlockManager(num_blocks, block_size, sharing=sharing)
        self.memory: dict[int, tuple[int, ...]] = {}
        self.capacity = num_blocks * block_size
        self.budget = max_running + spare
        self.scheduler = Scheduler(
            self.blocks, max_batch_tokens=self.budget, max_running=max_running, max_waiting=max_waiting
        )
        self.everyone: list[Sequence] = []
        self.ends: dict[int, str] = {}

    @rule(alike=st.integers(0, 30), prompt=st.integers(1, 30), kind=st.integers(2, 4), answer=st.integers(1, 12))
    def arrive(self, alike: int, prompt: int, kind: int, answer: int) -> None:
        prompt = min(prompt, self.capacity - 1)
        answer = min(answer, self.capacity - prompt)
        if prompt < 1:
            return
        tokens = [1] * min(alike, prompt) + [kind] * (prompt - alike)  # many begin alike
        sequence = Sequence(len(self.everyone), Prompt(tokens), SamplingParams(), answer, (0, 0), frozenset())
        scheduler = self.scheduler
        full = len(scheduler.waiting) + len(scheduler.running) >= scheduler.max_running + scheduler.max_waiting
        try:
            self.scheduler.add(sequence)
        except Overloaded:
            assert full
            return
        assert not full
        self.everyone.append(sequence)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), reason=st.sampled_from(["abort", "error"]))
    def abort(self, data: st.DataObject, reason: str) -> None:
        self.end(data.draw(st.sampled_from(self.alive)), reason)

    @precondition(lambda self: self.alive)
    @rule(lucky=st.booleans())
    def step(self, lucky: bool) -> None:
        """One step as the engine takes it; `lucky` sequences meet a stop token."""
        before = {s.id: s.computed for s in self.everyone}
        decoding = [s for s in self.scheduler.running if s.remaining == 1]
        oldest = min(self.alive, key=lambda s: s.id)
        chunks = self.scheduler.schedule()
        scheduled = [chunk.sequence for chunk in chunks]

        assert chunks, "work is left, but nothing runs"
        assert sum(chunk.stop - chunk.start for chunk in chunks) <= self.budget
        assert len(set(map(id, scheduled))) == len(chunks) <= self.scheduler.max_running
        assert oldest in scheduled, "the oldest always advances"
        for sequence in decoding:
            assert sequence in scheduled or sequence in self.scheduler.waiting, "prefill starved a decode"
        for chunk in chunks:
            sequence = chunk.sequence
            assert chunk.start < chunk.stop <= sequence.length
            assert chunk.start == sequence.computed
            assert chunk.start <= before[sequence.id] or before[sequence.id] == 0, "computed by nobody"
            assert len(sequence.blocks) * self.blocks.block_size >= chunk.stop

        for chunk in chunks:
            sequence, samples = chunk.sequence, chunk.samples
            self.read(sequence, chunk.start)
            for slot, position in zip(
                self.blocks.slots(sequence, chunk.start, chunk.stop), range(chunk.start, chunk.stop), strict=True
            ):
                self.memory[slot] = tuple(sequence.tokens(0, position + 1))
            sequence.computed = chunk.stop
            self.blocks.fill(sequence, chunk.start, chunk.stop)
            if samples:
                sequence.output.append(2)
                if lucky or len(sequence.output) >= sequence.max_tokens:
                    self.end(sequence, "stop")

    def read(self, sequence: Sequence, length: int) -> None:
        """What the sequence attends to is what it would have written itself."""
        for position, slot in enumerate(self.blocks.slots(sequence, 0, length)):
            assert self.memory[slot] == tuple(sequence.tokens(0, position + 1)), "a block holds something else"

    def end(self, sequence: Sequence, reason: str) -> None:
        assert sequence.id not in self.ends, "a sequence ended twice"
        self.scheduler.finish(sequence, reason, forget=reason == "error")  # type: ignore[arg-type]
        self.ends[sequence.id] = reason

    @property
    def alive(self) -> list[Sequence]:
        return [s for s in getattr(self, "everyone", []) if s.id not in self.ends]

    @invariant()
    def every_block_is_held_or_free(self) -> None:
        if not hasattr(self, "blocks"):
            return
        held = [block for s in self.everyone for block in s.blocks]
        assert len(set(held)) == self.blocks.used
        assert all(len(s.blocks) == len(set(s.blocks)) for s in self.everyone)
        assert len(held) == len(set(held)) or self.blocks.sharing
        assert self.blocks.used + self.blocks.free == self.blocks.num_blocks
        assert self.blocks.kept <= self.blocks.free
        for s in self.everyone:  # what is not full yet has one holder, who writes to it
            for i, block in enumerate(s.blocks):
                assert held.count(block) == 1 or (i + 1) * self.blocks.block_size <= s.computed
        assert not any(s.blocks for s in self.everyone if s.id in self.ends)
        assert not any(s.blocks or s.computed for s in self.scheduler.waiting)

    @invariant()
    def everyone_alive_is_in_one_place(self) -> None:
        if not hasattr(self, "blocks"):
            return
        running, waiting = [s.id for s in self.scheduler.running], [s.id for s in self.scheduler.waiting]
        assert sorted(running + waiting) == [s.id for s in self.alive]
        assert running == sorted(running)
        assert waiting == sorted(waiting)
        assert self.scheduler.idle == (not self.alive)

    def teardown(self) -> None:
        """Whatever happened: what is left comes to its end, and every block comes back."""
        if not hasattr(self, "blocks"):
            return
        for _ in range(20_000):
            if not self.alive:
                break
            self.step(lucky=False)  # type: ignore[call-arg]
            self.every_block_is_held_or_free()
        assert not self.alive, "the queue does not drain"
        assert self.scheduler.idle
        assert self.blocks.free == self.blocks.num_blocks
        assert sorted(self.ends) == [s.id for s in self.everyone]


TestScheduler = Machine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
