"""What streams cost the thread that computes: `python -m benchmarks.engine.turns`.

The driver is ours, the model a stand-in: a step launches kernels, waits for a device, and does its bookkeeping, for as
long as an H100's did; each piece of an answer costs the loop what Ray and HTTP cost it. Python lets its threads take
turns of 5 ms; replicas of this project have shorter ones (deployments/turns.py).
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from deployments.turns import TURN
from pipeline.driver import Driver
from pipeline.generator import Generator
from pipeline.types import Delta, SamplingParams

DEFAULT = 0.005  # Python's
LAUNCHES, LAUNCH, DEVICE, BOOKKEEPING = 12, 1e-4, 0.004, 0.001  # a number, then seconds
PIECE = 5e-4  # seconds of the loop for a piece of an answer
ANSWER = 128
STREAMS, ROUNDS = (1, 8, 64), 3


class StandIn:
    """Interface of Generator, as far as Driver knows it."""

    def __init__(self) -> None:
        self.left: dict[object, int] = {}
        self.steps = 0
        self.engine = SimpleNamespace(failures=0, stats=None)

    @property
    def idle(self) -> bool:
        return not self.left

    def add(self, *_: object) -> list[object]:
        answer = object()
        self.left[answer] = ANSWER
        return [answer]

    def abort(self, answers: list[object]) -> None:
        for answer in answers:
            self.left.pop(answer, None)

    def step(self) -> list[tuple[object, Delta]]:
        self.steps += 1
        for _ in range(LAUNCHES):
            busy(LAUNCH)
            time.sleep(0)  # as torch does, this lets others run
        time.sleep(DEVICE)
        busy(BOOKKEEPING)
        self.left = {answer: left - 1 for answer, left in self.left.items()}
        deltas = [
            (answer, Delta(0, "x", (1,), finish_reason=None if left else "length"))
            for answer, left in self.left.items()
        ]
        self.left = {answer: left for answer, left in self.left.items() if left}
        return deltas


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@dataclass(frozen=True)
class Measured:
    tokens: int
    seconds: float
    steps: int
    pieces: int

    @property
    def step(self) -> float:
        """Seconds."""
        return self.seconds / self.steps


async def serve(streams: int) -> Measured:
    model, pieces = StandIn(), 0
    driver = Driver(cast(Generator, model))
    nothing: Any = None

    async def consume() -> None:
        nonlocal pieces
        async for _ in driver.generate(nothing, [], SamplingParams()):
            pieces += 1
            busy(PIECE)

    begin = time.perf_counter()
    await asyncio.gather(*(consume() for _ in range(streams)))
    seconds = time.perf_counter() - begin
    driver.close()
    return Measured(streams * ANSWER, seconds, model.steps, pieces)


def main() -> None:
    print("| streams | turns | tokens a second | ms a step | pieces of answers |")
    print("| --- | --- | --- | --- | --- |")
    for streams in STREAMS:
        found: dict[float, list[Measured]] = {DEFAULT: [], TURN: []}
        for _ in range(ROUNDS):
            for turn, measured in found.items():
                sys.setswitchinterval(turn)
                measured.append(asyncio.run(serve(streams)))
        for turn, measured in found.items():
            middle = sorted(measured, key=lambda m: m.step)[ROUNDS // 2]
            cells = (f"{middle.tokens / middle.seconds:,.0f}", f"{middle.step * 1e3:.1f}", f"{middle.pieces:,}")
            print(f"| {streams} | {turn * 1e3:g} ms | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
