"""Threads that compute one step together: they meet at barriers and take the pieces of each phase from counters.

Waiting threads spin: a step has hundreds of phases of some ten microseconds. Who has spun for long lets
others have the core, so that a busy machine slows a step down but doesn't stop it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numba
import numpy as np

from .llvm import atomic_add, atomic_load, atomic_store, yield_thread

ARRIVED, ROUND, FAILED, COUNTERS = 0, 16, 17, 32
"""Places in the shared array; who arrives and who waits look at different cache lines."""

SPINS = 4000

HELPED = 2**32


class Team:
    """Runs `function(member, members, shared, *args)` in `members` threads at once, the caller's among them.

    `shared` is an int64 array for `meet`, `take` and `claim`; it begins with zeros. One call at a time; others wait.
    When one member fails nobody waits for it any more, and the call raises when all have returned.
    """

    def __init__(self, members: int, counters: int) -> None:
        assert members > 0
        self._lock = threading.Lock()
        self._counters = counters
        self._others: ThreadPoolExecutor | None = None
        self.resize(members)

    def resize(self, members: int) -> None:
        with self._lock:
            self.members = members
            if self._others:
                self._others.shutdown(wait=False)
            self._others = ThreadPoolExecutor(members - 1, thread_name_prefix="team") if members > 1 else None

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        with self._lock:
            shared = np.zeros(COUNTERS + self.members * self._counters, np.int64)
            calls: list[Future[None]] = []
            try:
                for member in range(1, self.members):
                    assert self._others is not None
                    calls.append(self._others.submit(_take_part, function, member, self.members, shared, *args))
                function(0, self.members, shared, *args)
            except BaseException:
                shared[FAILED] = 1
                raise
            finally:
                wait(calls)
            for call in calls:
                call.result()


def _take_part(function: Callable[..., Any], member: int, members: int, shared: np.ndarray, *args: Any) -> None:
    try:
        function(member, members, shared, *args)
    except BaseException:
        shared[FAILED] = 1
        raise


@numba.njit(nogil=True)
def meet(shared: Any, members: int) -> None:
    """Returns when all have called it, or one has failed."""
    if members == 1:
        return
    current = atomic_load(shared, ROUND)
    if atomic_add(shared, ARRIVED, 1) == members - 1:
        atomic_store(shared, ARRIVED, 0)
        atomic_add(shared, ROUND, 1)
        return
    spins = 0
    while atomic_load(shared, ROUND) == current and not atomic_load(shared, FAILED):
        spins += 1
        if spins > SPINS:
            yield_thread()


@numba.njit(nogil=True)
def take(shared: Any, counter: int) -> int:
    """The number of the next piece that nobody has taken: for pieces that take differently long, the longest first."""
    return atomic_add(shared, COUNTERS + counter, 1)


@numba.njit(nogil=True)
def claim(shared: Any, counter: int, member: int, members: int, count: int, size: int) -> tuple[int, int]:
    """The next of `count` things, at most `size` neighbours: (first, last + 1), two equal numbers when none is left.

    Each member has a share, of neighbours again, and takes it from its beginning; who is done helps the others from
    the ends of theirs. A counter tells what was taken of a share: pieces from the beginning in its low half, from the
    end in its high one.
    """
    counters = (len(shared) - COUNTERS) // members
    for i in range(members):
        owner = (member + i) % members
        first, last = count * owner // members, count * (owner + 1) // members
        pieces = (last - first + size - 1) // size
        taken = atomic_add(shared, COUNTERS + owner * counters + counter, HELPED if i else 1)
        begun, helped = taken % HELPED, taken // HELPED
        if begun + helped < pieces:
            piece = pieces - 1 - helped if i else begun
            return first + piece * size, min(first + (piece + 1) * size, last)
    return count, count
