"""Programs that run at the same time, and a directory that one run at a time works in."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "LOCK"
POLL_SECONDS = 0.2


@contextmanager
def locked(work: Path) -> Iterator[int]:
    """The open file that is locked in `work`; programs that hold it, too, keep the lock when this one is killed.

    Raises SystemExit where another run, or a program that it has left behind, holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another run, or a part that one has left behind, is at work in {work}") from None
        yield lock.fileno()


def run_together(
    commands: dict[str, list[str]],
    done: Callable[[str], None] = lambda name: None,
    lock: int | None = None,
    at_once: int | None = None,
) -> dict[str, int]:
    """The exit codes of all that were started; `done` is told who has ended well. `at_once` run at most (all of them),
    the others begin in their order as soon as one ends. When one fails, or this program is ended, those that still run
    are terminated (-15). They hold the `lock`, an open file, too: where this program is killed, they live on.
    """
    waiting, running, codes = list(commands), dict[str, subprocess.Popen[bytes]](), dict[str, int | None]()
    held = () if lock is None else (lock,)
    try:
        while (waiting or None in codes.values()) and not any(codes.values()):
            while waiting and list(codes.values()).count(None) < (at_once or len(commands)):
                name = waiting.pop(0)
                running[name] = subprocess.Popen(
                    commands[name], env=os.environ | {"OMP_NUM_THREADS": "1"}, pass_fds=held
                )
                codes[name] = None
            time.sleep(POLL_SECONDS)
            for name in [name for name, code in codes.items() if code is None]:
                codes[name] = running[name].poll()
                if codes[name] == 0:
                    done(name)
    finally:
        for process in running.values():
            process.terminate()  # nothing to one that has ended
        ended = {name: process.wait() for name, process in running.items()}
        for name, code in ended.items():
            if code == 0 and codes.get(name) is None:  # it has ended since it was asked
                done(name)
    return ended
