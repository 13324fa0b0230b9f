"""What every engine is asked to do, and in which order: rounds in which they take turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .process import Worker
from .roofline import Probe

Prompt = list[int]


def random_prompts(count: int, tokens: int, vocab: int, seed: int) -> list[Prompt]:
    rng = random.Random(seed)
    return [[rng.randrange(100, vocab) for _ in range(tokens)] for _ in range(count)]


@dataclass
class Measured:
    """Seconds by engine, all rounds; and what it said, to be held against the others'."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, list[Prompt]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def attempt(self, name: str, action: Callable[[], None]) -> None:
        """A failure ends an engine's part in this workload, and is a row of the table."""
        if name in self.failures:
            return
        try:
            action()
        except RuntimeError as error:
            self.failures[name] = str(error)
            self.seconds.pop(name, None)


def prefill(workers: dict[str, Worker], tokens: int, vocab: int, rounds: int, probe: Probe) -> Measured:
    """Seconds to the first token, prompts one at a time; the first round warms up."""
    measured = Measured()
    for number in range(rounds + 1):
        probe.measure()
        (prompt,) = random_prompts(1, tokens, vocab, seed=number)
        for name, worker in in_turn(workers, number):

            def once(name: str = name, worker: Worker = worker, prompt: Prompt = prompt, number: int = number) -> None:
                reply = worker.call("prefill", prompt=prompt)
                measured.tokens.setdefault(name, []).append(reply.result)
                if number:
                    measured.seconds.setdefault(name, []).append(reply.seconds)

            measured.attempt(name, once)
    return measured


def decode(
    workers: dict[str, Worker], batch: int, context: int, steps: int, vocab: int, rounds: int, probe: Probe
) -> Measured:
    """Seconds a step of `batch` sequences, `steps` in all after prompts of `context` tokens."""
    measured = Measured()
    prompts = random_prompts(batch, context, vocab, seed=batch)
    for name, worker in workers.items():
        measured.attempt(name, lambda worker=worker: worker.call("start", prompts=prompts))  # type: ignore[misc]
    pieces = [steps * i // rounds for i in range(rounds + 1)]
    for number in range(rounds):
        probe.measure()
        count = pieces[number + 1] - pieces[number]
        for name, worker in in_turn(workers, number):

            def once(name: str = name, worker: Worker = worker, count: int = count) -> None:
                measured.seconds.setdefault(name, []).extend(worker.call("steps", count=count).result)

            measured.attempt(name, once)
    for name, worker in workers.items():

        def end(name: str = name, worker: Worker = worker) -> None:
            measured.tokens[name] = worker.call("finish").result

        measured.attempt(name, end)
    return measured


def in_turn(workers: dict[str, Worker], number: int) -> Sequence[tuple[str, Worker]]:
    """Another one begins each round: what the first one leaves in the caches is everybody's once."""
    items = list(workers.items())
    return items[number % len(items) :] + items[: number % len(items)]
