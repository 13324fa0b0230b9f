from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import batching
from pipeline.batching import Batcher
from pipeline.errors import InvalidMedia, Overloaded


class Worker:
    """Doubles numbers. Waits at its gate and between two steps; remembers its batches."""

    def __init__(self, closed: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.stopped = 0
        if not closed:
            self.gate.set()

    def __call__(self, units: list[int], checkpoint: Callable[[], None]) -> list[int]:
        self.batches.append(list(units))
        self.entered.set()
        try:
            while not self.gate.wait(0.005):
                checkpoint()
        except BaseException:
            self.stopped += 1
            raise
        if any(unit < 0 for unit in units):
            raise InvalidMedia("a negative unit")
        return [2 * unit for unit in units]


async def until(condition: Callable[[], Any], seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.005)


def play(scene: Callable[[Batcher[int, int], Worker], Any], budget: float = 4, limit: float = 100, **how: Any) -> Any:
    """Runs one scene with a batcher of its own."""
    worker = Worker(**how)

    async def main() -> Any:
        batcher = Batcher(worker, budget=budget, max_queued=limit)
        try:
            return await asyncio.wait_for(scene(batcher, worker), 10)
        finally:
            worker.gate.set()
            batcher.close()

    return asyncio.run(main())


def test_one_caller() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        assert await batcher.submit([1, 2, 3], [1, 1, 1]) == ([2, 4, 6], 3)
        stats = batcher.stats
        assert (stats.queued, stats.running, stats.batches, stats.units, stats.dropped) == (0, 0, 1, 3, 0)

    play(scene)


def test_callers_share_a_batch_under_the_budget() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        first = asyncio.create_task(batcher.submit([0], [1]))
        await until(worker.entered.is_set)
        others = [asyncio.create_task(batcher.submit([10 * i, 10 * i + 1], [1, 1])) for i in (1, 2, 3)]
        await until(lambda: batcher.stats.queued == 6)
        assert batcher.stats.running == 1
        worker.gate.set()
        assert (await first) == ([0], 1)
        assert [r for r, _ in await asyncio.gather(*others)] == [[20, 22], [40, 42], [60, 62]]
        assert worker.batches == [[0], [10, 11, 20, 21], [30, 31]]

    play(scene, closed=True)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from([0.5, 1.0, 3.0, 9.0]), min_size=1, max_size=5), min_size=1, max_size=8),
    st.floats(0.5, 10),
)
def test_budget_and_results(callers: list[list[float]], budget: float) -> None:
    """Each batch is within the budget, or one unit; everyone gets their own results in order."""

    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        cost: dict[int, float] = {}
        tasks = []
        for caller, costs in enumerate(callers):
            units = [100 * caller + i for i in range(len(costs))]
            cost |= dict(zip(units, costs, strict=True))
            tasks.append(asyncio.create_task(batcher.submit(units, costs)))
        for caller, (results, _) in enumerate(await asyncio.gather(*tasks)):
            assert results == [2 * (100 * caller + i) for i in range(len(callers[caller]))]
        for batch in worker.batches:
            assert len(batch) == 1 or sum(cost[unit] for unit in batch) <= budget
        assert [unit for batch in worker.batches for unit in batch] == sorted(cost)

    play(scene, budget=budget, limit=10**6)


def test_a_cancelled_caller_leaves_the_line() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        first = asyncio.create_task(batcher.submit([0], [1]))
        await until(worker.entered.is_set)
        gone, stays = (asyncio.create_task(batcher.submit([i], [1])) for i in (1, 2))
        await until(lambda: batcher.stats.queued == 2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.stats.queued == 1
        worker.gate.set()
        await asyncio.gather(first, stays)
        assert worker.batches == [[0], [2]]
        assert batcher.stats.dropped == 1

    play(scene, closed=True)


def test_a_batch_that_nobody_waits_for_stops_at_a_checkpoint() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        tasks = [asyncio.create_task(batcher.submit([i], [1])) for i in range(3)]
        await until(worker.entered.is_set)
        for task in tasks:
            task.cancel()
        begin = time.monotonic()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: worker.stopped == 1 and batcher.stats.running == 0)
        assert time.monotonic() - begin < 1
        assert batcher.stats.dropped == 3
        worker.gate.set()
        assert (await batcher.submit([7], [1]))[0] == [14]

    play(scene, closed=True)


def test_a_batch_goes_on_while_one_still_waits() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        gone, stays = (asyncio.create_task(batcher.submit([i], [1])) for i in (1, 2))
        await until(worker.entered.is_set)
        gone.cancel()
        await asyncio.sleep(0.05)
        assert worker.stopped == 0
        worker.gate.set()
        assert (await stays)[0] == [4]
        assert (batcher.stats.units, batcher.stats.dropped) == (1, 1)

    play(scene, closed=True)


def test_a_broken_unit_harms_nobody_else() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        tasks = [asyncio.create_task(batcher.submit([i], [1])) for i in (1, -1, 3)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0][0] == [2]
        assert isinstance(results[1], InvalidMedia)
        assert results[2][0] == [6]
        assert worker.batches == [[1, -1, 3], [1], [-1], [3]]

    play(scene)


def test_a_caller_with_one_broken_unit_gets_its_error() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        with pytest.raises(InvalidMedia):
            await batcher.submit([1, -1, 3], [1, 1, 1])
        assert (await batcher.submit([5], [1]))[0] == [10]

    play(scene)


def test_a_full_line() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        tasks = [asyncio.create_task(batcher.submit([0], [1]))]
        await until(worker.entered.is_set)
        tasks += [asyncio.create_task(batcher.submit([i], [1])) for i in range(1, 4)]
        await until(lambda: batcher.stats.queued == 3)
        with pytest.raises(Overloaded):
            await batcher.submit([9], [1])
        worker.gate.set()
        await asyncio.gather(*tasks)
        assert (await batcher.submit([9], [1]))[0] == [18]

    play(scene, limit=3, closed=True)


def test_a_large_caller_is_let_into_an_empty_line() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        assert (await batcher.submit([1, 2], [50, 50]))[0] == [2, 4]
        assert worker.batches == [[1], [2]]

    play(scene, limit=3)


def test_a_line_of_callers_that_left_is_empty() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        first = asyncio.create_task(batcher.submit([0], [1]))
        await until(worker.entered.is_set)
        gone = asyncio.create_task(batcher.submit([1], [1]))
        await until(lambda: batcher.stats.queued == 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        large = asyncio.create_task(batcher.submit([2], [50]))
        await asyncio.sleep(0.02)
        worker.gate.set()
        await first
        assert (await large)[0] == [4]

    play(scene, limit=3, closed=True)


def test_costs_of_fractions() -> None:
    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        results = await asyncio.gather(*(batcher.submit([i], [1.5]) for i in range(4)))
        assert [batch for _, batch in results] == [3.0] * 4
        assert worker.batches == [[0, 1], [2, 3]]

    play(scene, budget=4)


def test_health_is_lost_with_failures_in_a_row() -> None:
    """A broken unit is its caller's matter; one after another means that the worker is broken."""
    broken = True

    def run(units: list[int], checkpoint: Callable[[], None]) -> list[int]:
        if broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return units

    async def scene() -> None:
        nonlocal broken
        batcher: Batcher[int, int] = Batcher(run, budget=1, max_queued=10)
        for _ in range(3):
            assert batcher.healthy
            with pytest.raises(RuntimeError):
                await batcher.submit([1], [1])
        assert not batcher.healthy
        broken = False
        await batcher.submit([1], [1])
        assert batcher.healthy
        batcher.close()

    asyncio.run(scene())


def test_closing_cancels_who_waits() -> None:
    async def scene() -> None:
        gate = threading.Event()
        batcher: Batcher[int, int] = Batcher(lambda units, _: gate.wait(5) and units, budget=1, max_queued=10)
        waiting = [asyncio.create_task(batcher.submit([i], [1])) for i in range(3)]
        await asyncio.sleep(0.02)
        batcher.close()
        gate.set()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(scene())


def test_each_batch_is_told_once() -> None:
    """Not once for each who has a unit in it."""

    async def scene() -> list[float]:
        told: list[float] = []
        batcher: Batcher[int, int] = Batcher(Worker(), budget=10, max_queued=100, on_batch=told.append)
        try:
            await asyncio.gather(*(batcher.submit([i], [2.0]) for i in range(4)))
            await batcher.submit([9], [3.0])
        finally:
            batcher.close()
        return told

    assert asyncio.run(scene()) == [8.0, 3.0]


def test_a_batch_that_hangs_is_no_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BATCH_LIMIT", 0.05)

    async def scene(batcher: Batcher[int, int], worker: Worker) -> None:
        hanging = asyncio.create_task(batcher.submit([1], [1.0]))
        await until(worker.entered.is_set)
        assert batcher.healthy
        await until(lambda: not batcher.healthy)
        worker.gate.set()
        await hanging
        assert batcher.healthy

    play(scene, closed=True)
