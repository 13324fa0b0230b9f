"""Threads that compute one step together: they meet at barriers and take the pieces of each phase from a counter.

Waiting threads spin: a step has hundreds of phases of some ten microseconds. Who has spun for long lets
others have the core, so that a busy machine slows a step down but doesn't stop it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

from .llvm import atomic_add, atomic_load, atomic_store, yield_thread

ARRIVED, ROUND, COUNTERS = 0, 16, 32
"""Places in the shared array, the first two on cache lines of their own."""

SPINS = 4000


class Team:
    """Runs `function(member, members, shared, *args)` in `members` threads at once, the caller's among them.

    `shared` is an int64 array for `meet` and `take`; it begins with zeros. One call at a time; others wait.
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
            shared = np.zeros(COUNTERS + self._counters, np.int64)
            calls = [
                self._others.submit(function, member, self.members, shared, *args)
                for member in range(1, self.members)
                if self._others
            ]
            function(0, self.members, shared, *args)
            for call in calls:
                call.result()


@numba.njit(nogil=True)
def meet(shared: Any, members: int) -> None:
    """Returns when all have called it."""
    if members == 1:
        return
    current = atomic_load(shared, ROUND)
    if atomic_add(shared, ARRIVED, 1) == members - 1:
        atomic_store(shared, ARRIVED, 0)
        atomic_add(shared, ROUND, 1)
        return
    spins = 0
    while atomic_load(shared, ROUND) == current:
        spins += 1
        if spins > SPINS:
            yield_thread()


@numba.njit(nogil=True)
def take(shared: Any, counter: int) -> int:
    """The number of the next piece that nobody has taken."""
    return atomic_add(shared, COUNTERS + counter, 1)
