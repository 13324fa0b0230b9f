from __future__ import annotations

import pytest

from pipeline.engine.blocks import BlockManager
from pipeline.engine.scheduler import Chunk, Scheduler
from pipeline.engine.sequence import Sequence
from pipeline.errors import Overloaded
from pipeline.types import Prompt, SamplingParams


def make(
    num_blocks: int = 100, block_size: int = 4, budget: int = 16, running: int = 4, waiting: int = 100
) -> Scheduler:
    blocks = BlockManager(num_blocks, block_size)
    return Scheduler(blocks, max_batch_tokens=budget, max_running=running, max_waiting=waiting)


def sequence(number: int, prompt: int, answer: int = 8) -> Sequence:
    """No two begin alike."""
    return Sequence(number, Prompt([number] * prompt), SamplingParams(), answer, (0, 0), frozenset())


def compute(chunks: list[Chunk]) -> list[tuple[int, int, int]]:
    """What the engine does with chunks; (id, start, stop) of each."""
    shown = [(c.sequence.id, c.start, c.stop) for c in chunks]
    for chunk in chunks:
        samples = chunk.samples
        chunk.sequence.computed = chunk.stop
        if samples:
            chunk.sequence.output.append(2)
    return shown


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    scheduler = make(budget=16)
    scheduler.add(sequence(0, 40))
    steps = [compute(scheduler.schedule()) for _ in range(4)]
    assert steps == [[(0, 0, 16)], [(0, 16, 32)], [(0, 32, 40)], [(0, 40, 41)]]


def test_decodes_go_first_and_prefill_takes_the_rest() -> None:
    scheduler = make(budget=16)
    scheduler.add(sequence(0, 3))
    compute(scheduler.schedule())
    scheduler.add(sequence(1, 40))
    assert compute(scheduler.schedule()) == [(0, 3, 4), (1, 0, 15)]
    assert compute(scheduler.schedule()) == [(0, 4, 5), (1, 15, 30)]


def test_a_prompt_beside_answers_gets_what_a_steps_time_leaves() -> None:
    blocks = BlockManager(100, 4)
    scheduler = Scheduler(blocks, max_batch_tokens=64, max_running=4, max_waiting=100, step_seconds=0.05)
    for _ in range(40):  # decodes take 20 ms, each token of a prompt one more
        scheduler.budget.observe(1, 0, 0.02)
        scheduler.budget.observe(1, 20, 0.04)
    scheduler.add(sequence(0, 3))
    compute(scheduler.schedule())
    scheduler.add(sequence(1, 60))
    (_, decoded, _), (_, begin, end) = compute(scheduler.schedule())
    assert (decoded, begin) == (3, 0)
    assert end == pytest.approx(30, abs=1)


def test_several_prompts_share_a_step() -> None:
    scheduler = make(budget=16)
    for i in range(3):
        scheduler.add(sequence(i, 7))
    assert compute(scheduler.schedule()) == [(0, 0, 7), (1, 0, 7), (2, 0, 2)]


def test_at_most_max_running() -> None:
    scheduler = make(budget=16, running=2)
    for i in range(3):
        scheduler.add(sequence(i, 2))
    assert [c.sequence.id for c in scheduler.schedule()] == [0, 1]
    assert len(scheduler.waiting) == 1


def test_admission_is_in_order_of_arrival() -> None:
    """A small request behind a large one that has no room yet does not overtake it."""
    scheduler = make(num_blocks=10, block_size=4, budget=64)
    scheduler.add(sequence(0, 20, answer=4))
    scheduler.add(sequence(1, 28, answer=4))
    scheduler.add(sequence(2, 1, answer=1))
    assert [c.sequence.id for c in scheduler.schedule()] == [0]


def test_the_last_to_arrive_is_preempted_and_comes_back_first() -> None:
    scheduler = make(num_blocks=4, block_size=4, budget=16)
    scheduler.add(sequence(0, 7, answer=9))
    scheduler.add(sequence(1, 7, answer=9))
    compute(scheduler.schedule())  # both prompts: 7 tokens each, all 4 blocks
    compute(scheduler.schedule())  # position 8 still fits
    scheduler.add(sequence(2, 1, answer=1))
    assert compute(scheduler.schedule()) == [(0, 8, 9)]
    loser = scheduler.waiting[0]
    assert (loser.id, loser.blocks, loser.computed, loser.preemptions) == (1, [], 0, 1)
    assert scheduler.preemptions == 1
    scheduler.finish(scheduler.running[0], "stop")
    # All that it knew is computed again in one go, its own tokens included.
    assert compute(scheduler.schedule())[0] == (1, 0, 9)


def test_the_last_to_arrive_gives_way_itself() -> None:
    scheduler = make(num_blocks=3, block_size=4, budget=16)
    old, new = sequence(0, 5, answer=7), sequence(1, 4, answer=4)
    scheduler.add(old)
    scheduler.add(new)
    compute(scheduler.schedule())
    assert compute(scheduler.schedule()) == [(0, 5, 6)]
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [new]


def test_the_queue_is_bounded() -> None:
    """As many as may run and as may wait, also where all come between two steps."""
    scheduler = make(running=1, waiting=2)
    for i in range(3):
        scheduler.add(sequence(i, 1))
    with pytest.raises(Overloaded, match="0 sequences are running and 3 waiting"):
        scheduler.add(sequence(3, 1))
    compute(scheduler.schedule())
    with pytest.raises(Overloaded, match="1 sequences are running and 2 waiting"):
        scheduler.add(sequence(3, 1))
    scheduler.finish(scheduler.running[0], "stop")
    scheduler.add(sequence(3, 1))


def test_finishing_frees_wherever_the_sequence_is() -> None:
    scheduler = make(num_blocks=10)
    running, waiting = sequence(0, 30), sequence(1, 30)
    scheduler.add(running)
    scheduler.add(waiting)
    compute(scheduler.schedule())
    assert scheduler.blocks.used > 0
    scheduler.finish(waiting, "abort")
    scheduler.finish(running, "stop")
    assert (running.finish_reason, waiting.finish_reason) == ("stop", "abort")
    assert scheduler.idle
    assert scheduler.blocks.used == 0
    with pytest.raises(AssertionError):
        scheduler.finish(running, "stop")


def test_a_sequence_that_can_never_fit_is_a_bug_here() -> None:
    with pytest.raises(AssertionError):
        make(num_blocks=2, block_size=4).add(sequence(0, 5, answer=4))


def test_a_budget_below_one_token_a_sequence_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        make(budget=3, running=4)


def test_idle() -> None:
    scheduler = make()
    assert scheduler.idle
    assert scheduler.schedule() == []


def test_a_prompts_last_token_is_no_decode() -> None:
    """However short a chunk of a prompt is, what it takes isn't learnt as the time of a decode."""
    sequence = Sequence(0, Prompt([1, 2, 3]), SamplingParams(), 4, (0, 0), frozenset())
    assert not Chunk(sequence, 1, 2).decodes
    assert not Chunk(sequence, 2, 3).decodes
    sequence.output.append(4)
    assert Chunk(sequence, 3, 4).decodes
    assert not Chunk(sequence, 2, 3).decodes, "recomputed after it was preempted"
