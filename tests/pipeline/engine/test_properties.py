"""Scheduler and block manager through random arrivals, aborts and steps, without a model."""

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
    )
    def build(self, num_blocks: int, block_size: int, max_running: int, spare: int, max_waiting: int) -> None:
        self.blocks = BlockManager(num_blocks, block_size)
        self.capacity = num_blocks * block_size
        self.budget = max_running + spare
        self.scheduler = Scheduler(
            self.blocks, max_batch_tokens=self.budget, max_running=max_running, max_waiting=max_waiting
        )
        self.everyone: list[Sequence] = []
        self.ends: dict[int, str] = {}

    @rule(prompt=st.integers(1, 30), answer=st.integers(1, 12))
    def arrive(self, prompt: int, answer: int) -> None:
        prompt = min(prompt, self.capacity - 1)
        answer = min(answer, self.capacity - prompt)
        if prompt < 1:
            return
        sequence = Sequence(len(self.everyone), Prompt([1] * prompt), SamplingParams(), answer, (0, 0), frozenset())
        full = len(self.scheduler.waiting) >= self.scheduler.max_waiting
        try:
            self.scheduler.add(sequence)
        except Overloaded:
            assert full
            return
        assert not full
        self.everyone.append(sequence)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.alive)), "abort")

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
            assert chunk.start == sequence.computed <= before[sequence.id]
            assert len(sequence.blocks) * self.blocks.block_size >= chunk.stop

        for chunk in chunks:
            sequence, samples = chunk.sequence, chunk.samples
            sequence.computed = chunk.stop
            if samples:
                sequence.output.append(2)
                if lucky or len(sequence.output) >= sequence.max_tokens:
                    self.end(sequence, "stop")

    def end(self, sequence: Sequence, reason: str) -> None:
        assert sequence.id not in self.ends, "a sequence ended twice"
        self.scheduler.finish(sequence, reason)  # type: ignore[arg-type]
        self.ends[sequence.id] = reason

    @property
    def alive(self) -> list[Sequence]:
        return [s for s in getattr(self, "everyone", []) if s.id not in self.ends]

    @invariant()
    def every_block_has_one_holder(self) -> None:
        if not hasattr(self, "blocks"):
            return
        held = [block for s in self.everyone for block in s.blocks]
        assert len(held) == len(set(held)) == self.blocks.used
        assert self.blocks.used + self.blocks.free == self.blocks.num_blocks
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
            self.every_block_has_one_holder()
        assert not self.alive, "the queue does not drain"
        assert self.scheduler.idle
        assert self.blocks.free == self.blocks.num_blocks
        assert sorted(self.ends) == [s.id for s in self.everyone]


TestScheduler = Machine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
