"""Many callers, one worker: units of work wait in line and run in batches under a budget.

The budget counts what units cost (slices, seconds of sound), not how many callers there are. A unit
whose caller has gone is dropped from the line; a batch that nobody waits for stops at its next
checkpoint; a batch that fails runs again unit by unit, so that a broken unit harms nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import Cancelled, MegrezError, Overloaded

MAX_FAILURES = 3
BATCH_LIMIT = 300.0
"""Seconds. What takes longer hangs."""

log = logging.getLogger(__name__)

Unit = TypeVar("Unit")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Job(Generic[Unit, Result]):
    unit: Unit
    cost: float
    future: asyncio.Future[Result]
    batch_cost: float = 0.0


@dataclass(frozen=True)
class BatcherStats:
    queued: float  # cost of the units in line
    running: float  # cost of the batch being computed
    batches: int
    units: int  # units that were computed for somebody
    dropped: int  # units whose callers left first


class Batcher(Generic[Unit, Result]):
    """`run(units, checkpoint)` is called in a thread of its own, one batch at a time."""

    def __init__(
        self,
        run: Callable[[list[Unit], Callable[[], None]], list[Result]],
        *,
        budget: float,
        max_queued: float,
        on_batch: Callable[[float], object] = lambda cost: None,
    ) -> None:
        """`on_batch` is told what each batch costs."""
        self._run, self._on_batch = run, on_batch
        self.budget, self.max_queued = budget, max_queued
        self._line: deque[_Job[Unit, Result]] = deque()
        self._batch: list[_Job[Unit, Result]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._worker: asyncio.Task[None] | None = None
        self._batches = self._units = self._dropped = self._failures = 0
        self._began: float | None = None

    async def submit(self, units: Sequence[Unit], costs: Sequence[float]) -> tuple[list[Result], float]:
        """The units' results in order, and the cost of the largest batch that one of them ran in.

        Raises Overloaded when the line is full; a caller whose units alone exceed the limit is let
        in when the line is empty.
        """
        queued = self._queued()
        if queued and queued + sum(costs) > self.max_queued:
            raise Overloaded("too much work is waiting for this encoder")
        loop = asyncio.get_running_loop()
        jobs = [_Job(u, c, loop.create_future()) for u, c in zip(units, costs, strict=True)]
        self._line.extend(jobs)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            results = await asyncio.gather(*(job.future for job in jobs))
        finally:
            for job in jobs:
                job.future.cancel()
        return results, max(job.batch_cost for job in jobs)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Runs something in the worker's thread, between two batches."""
        self._thread.submit(function, *args)

    @property
    def stats(self) -> BatcherStats:
        running = sum(job.cost for job in self._batch)
        return BatcherStats(self._queued(), running, self._batches, self._units, self._dropped)

    @property
    def healthy(self) -> bool:
        """False once several units in a row have failed for no fault of theirs (a lost GPU, say), or one hangs."""
        hangs = self._began is not None and time.monotonic() - self._began > BATCH_LIMIT
        return self._failures < MAX_FAILURES and not hangs

    def close(self) -> None:
        """Ends the worker; who still waits is cancelled."""
        if self._worker:
            self._worker.cancel()
        for job in [*self._line, *self._batch]:
            job.future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _queued(self) -> float:
        return sum(job.cost for job in self._line if not job.future.cancelled())

    async def _work(self) -> None:
        while batch := self._take():
            self._batch = batch
            self._batches += 1
            self._on_batch(batch[0].batch_cost)
            try:
                await self._compute(batch)
            finally:
                self._batch = []

    def _take(self) -> list[_Job[Unit, Result]]:
        """The next batch: in order of arrival, up to the budget, at least one unit."""
        batch: list[_Job[Unit, Result]] = []
        cost = 0.0
        while self._line:
            job = self._line[0]
            if job.future.cancelled():
                self._dropped += 1
            elif batch and cost + job.cost > self.budget:
                break
            else:
                batch.append(job)
                cost += job.cost
            self._line.popleft()
        for job in batch:
            job.batch_cost = cost
        return batch

    async def _compute(self, batch: list[_Job[Unit, Result]]) -> None:
        def checkpoint() -> None:
            if all(job.future.cancelled() for job in batch):
                raise Cancelled("nobody waits for this batch")

        units = [job.unit for job in batch]
        try:
            loop = asyncio.get_running_loop()
            self._began = time.monotonic()
            try:
                results = await loop.run_in_executor(self._thread, self._run, units, checkpoint)
            finally:
                self._began = None
            assert len(results) == len(units), "one result a unit"
        except Cancelled:
            self._dropped += len(batch)
        except Exception as error:
            if len(batch) > 1:
                log.exception("a batch of %d units failed; each runs again alone", len(batch))
                for job in batch:
                    if not job.future.cancelled():
                        await self._compute([job])
                return
            if not isinstance(error, MegrezError):
                self._failures += 1
                log.exception("a unit failed")
            if not batch[0].future.cancelled():
                batch[0].future.set_exception(error)
        else:
            self._failures = 0
            for job, result in zip(batch, results, strict=True):
                if job.future.cancelled():
                    self._dropped += 1
                else:
                    self._units += 1
                    job.future.set_result(result)
