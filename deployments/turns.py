"""How the threads of a replica take turns.

A replica computes in one thread and serves its streams in another, and Python runs one of them at a time. Whoever has
waited for the GPU, or let the other one run meanwhile, waits until it gives way: 5 ms by default, several times
a step. With 64 streams a step of 7 ms took 42 ms so (an H100; `python -m benchmarks.engine.turns` shows it anywhere).
"""

from __future__ import annotations

import sys

TURN = 1e-4  # seconds


def take_short_turns(device: str) -> None:
    """For the whole process, if it computes on a GPU. On a CPU nothing came of it: there nobody waits for a device."""
    if device != "cpu":
        sys.setswitchinterval(TURN)
