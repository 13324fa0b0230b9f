"""A Generator in a thread of its own, for callers that live in asyncio.

The thread owns the engine: everything that touches it is sent there. Pieces of answers come back
to the caller's loop; a caller that leaves has its answers aborted before the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from .engine.engine import EngineStats
from .errors import MegrezError
from .generator import Answer, Generator
from .types import Delta, MediaEmbeds, Prompt, SamplingParams

MAX_FAILURES = 3
STEP_LIMIT = 300.0  # seconds; a step that takes longer will not come back

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Call:
    """One caller: its answers, and the queue that their pieces go to."""

    loop: asyncio.AbstractEventLoop
    inbox: asyncio.Queue[Delta | Exception] = field(default_factory=asyncio.Queue)
    answers: list[Answer] = field(default_factory=list)
    gone: bool = False

    def deliver(self, items: Sequence[Delta | Exception]) -> None:
        """From the engine's thread."""
        try:
            self.loop.call_soon_threadsafe(self._receive, items)
        except RuntimeError:  # the caller's loop is closed: nobody listens
            self.gone = True

    def _receive(self, items: Sequence[Delta | Exception]) -> None:
        for item in items:
            self.inbox.put_nowait(item)


class Driver:
    def __init__(self, generator: Generator, on_change: Callable[[EngineStats], None] | None = None) -> None:
        self.generator = generator
        self._on_change = on_change
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: dict[Answer, _Call] = {}
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._failures = 0
        self._step_began: float | None = None
        self._closed = False
        self._thread.start()

    async def generate(
        self, prompt: Prompt, media: Sequence[MediaEmbeds], params: SamplingParams, n: int = 1
    ) -> AsyncGenerator[list[Delta], None]:
        """Pieces of `n` answers, each list what came since the last; ends when all have finished.

        Raises what Generator.add raises before the first piece. Closing or cancelling the iterator
        frees everything that the answers hold.
        """
        if self._closed:
            raise MegrezError("the engine has stopped")
        call = _Call(asyncio.get_running_loop())
        self._commands.put(lambda: self._start(call, prompt, media, params, n))
        left = n
        try:
            while left:
                items = [await call.inbox.get()]
                while not call.inbox.empty():
                    items.append(call.inbox.get_nowait())
                deltas = []
                for item in items:
                    if isinstance(item, Exception):
                        raise item
                    deltas.append(item)
                left -= sum(delta.finish_reason is not None for delta in deltas)
                yield merge(deltas)
        finally:
            if left:
                call.gone = True
                self._commands.put(lambda: self._abort(call))

    def resize(
        self,
        *,
        max_batch_tokens: int,
        max_running: int,
        max_waiting: int,
        default_max_tokens: int | None,
        threads: int,
        step_seconds: float | None = None,
    ) -> None:
        """Changes the engine's limits and threads between two steps.

        Raises MegrezError if the limits don't fit together.
        """
        if max_batch_tokens < max_running:
            raise MegrezError("max_batch_tokens must be at least max_running: a decode step takes one token each")
        engine = self.generator.engine
        scheduler = engine.scheduler

        def apply() -> None:
            scheduler.budget.max_tokens = max_batch_tokens
            scheduler.budget.step_seconds = step_seconds
            scheduler.max_running = max_running
            scheduler.max_waiting = max_waiting
            engine.default_max_tokens = default_max_tokens
            engine.runner.model.set_threads(threads)  # torch's count for the thread that calls

        self._commands.put(apply)

    @property
    def stats(self) -> EngineStats:
        return self.generator.engine.stats

    @property
    def healthy(self) -> bool:
        """The thread runs, no step hangs, and the last ones did not fail one after the other."""
        hangs = self._step_began is not None and time.monotonic() - self._step_began > STEP_LIMIT
        failures = self._failures + self.generator.engine.failures
        return self._thread.is_alive() and not self._closed and not hangs and failures < MAX_FAILURES

    def close(self) -> None:
        """Ends the thread; who still waits is told."""
        self._closed = True
        self._commands.put(None)
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        try:
            while self._obey():
                if not self.generator.idle:
                    self._step()
                self._tell()
        except Exception:
            log.exception("the engine's thread failed")
        finally:
            self._closed = True
            self._fail_all(MegrezError("the engine has stopped"))
            self._refuse_all()

    def _tell(self) -> None:
        if self._on_change:
            try:
                self._on_change(self.stats)
            except Exception:  # whoever observes must not stop the engine
                log.exception("observing the engine failed; it is not observed any more")
                self._on_change = None

    def _obey(self) -> bool:
        """Runs the commands that have come; waits for one when the engine is idle. False: stop."""
        idle = self.generator.idle
        while idle or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command()
            idle = False
        return True

    def _refuse_all(self) -> None:
        """Commands that came too late find a closed engine: _start() tells their callers."""
        with contextlib.suppress(queue.Empty):
            while True:
                if command := self._commands.get_nowait():
                    command()

    def _step(self) -> None:
        self._step_began = time.monotonic()
        try:
            outputs = self.generator.step()
        except Exception as error:  # a bug of ours: end everybody rather than hang
            log.exception("the engine's step failed")
            self._failures += 1
            self._fail_all(error)
            return
        finally:
            self._step_began = None
        self._failures = 0
        pieces: dict[_Call, list[Delta | Exception]] = {}
        for answer, delta in outputs:
            pieces.setdefault(self._calls[answer], []).append(delta)
            if delta.finish_reason:
                del self._calls[answer]
        for call, deltas in pieces.items():
            call.deliver(deltas)

    def _start(self, call: _Call, prompt: Prompt, media: Sequence[MediaEmbeds], params: SamplingParams, n: int) -> None:
        if call.gone:
            return
        if self._closed:
            call.deliver([MegrezError("the engine has stopped")])
            return
        try:
            call.answers = self.generator.add(prompt, media, params, n)
        except Exception as error:
            call.deliver([error])
            return
        self._calls.update(dict.fromkeys(call.answers, call))

    def _abort(self, call: _Call) -> None:
        self.generator.abort(call.answers)
        for answer in call.answers:
            self._calls.pop(answer, None)

    def _fail_all(self, error: Exception) -> None:
        failure = error if isinstance(error, MegrezError) else MegrezError("the engine failed")
        calls = set(self._calls.values())
        self.generator.abort(list(self._calls))
        self._calls.clear()
        for call in calls:
            call.deliver([failure])


def merge(deltas: Sequence[Delta]) -> list[Delta]:
    """Joins the pieces of each answer: one delta an answer, in order of first appearance."""
    merged: dict[int, Delta] = {}
    for delta in deltas:
        first = merged.get(delta.index)
        merged[delta.index] = (
            delta
            if first is None
            else replace(
                delta,
                text=first.text + delta.text,
                token_ids=first.token_ids + delta.token_ids,
                logprobs=first.logprobs + delta.logprobs,
                cached_tokens=first.cached_tokens,
            )
        )
    return list(merged.values())
