from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.engine import process
from benchmarks.engine.process import Absent, Setup, Worker
from benchmarks.engine.roofline import Probe
from benchmarks.engine.workloads import decode, in_turn, prefill, random_prompts

TOY = """
import os, sys
from pipe import serve

class Toy:
    def load(self, model, threads, answer=0):
        print("loading", flush=True)
        if model == "broken":
            raise ValueError("no such model")
        self.threads, self.token = threads, answer
        return {"toy": "1.0"}
    def prefill(self, prompt):
        return [prompt[0]]
    def start(self, prompts):
        self.tokens = [[self.token] for _ in prompts]
    def steps(self, count):
        for tokens in self.tokens:
            tokens += [self.token] * count
        return [0.001 * (1 + self.token)] * count
    def finish(self):
        return self.tokens
    def fail(self):
        raise KeyError("lost")
    def die(self):
        os._exit(3)

serve(Toy())
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    shutil.copy(process.WORKERS / "pipe.py", tmp_path)
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(process, "WORKERS", tmp_path)
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.close()


def start(toys: list[Worker], tmp_path: Path, model: str = "fine", answer: int = 0) -> Worker:
    setup = Setup("toy", "toy", Path(sys.executable), Path(model), {"answer": answer})
    toys.append(Worker(setup, 2, tmp_path / f"{len(toys)}.log"))
    return toys[-1]


def test_commands_and_answers(toys: list[Worker], tmp_path: Path) -> None:
    worker = start(toys, tmp_path)
    assert worker.facts == {"toy": "1.0"}
    reply = worker.call("prefill", prompt=[5, 6])
    assert reply.result == [5]
    assert 0 <= reply.seconds < 5
    assert (tmp_path / "0.log").read_text() == "loading\n", "what it prints doesn't mix with its answers"


def test_a_failure_is_told_and_the_worker_goes_on(toys: list[Worker], tmp_path: Path) -> None:
    worker = start(toys, tmp_path)
    with pytest.raises(RuntimeError, match="KeyError: 'lost'"):
        worker.call("fail")
    assert worker.call("prefill", prompt=[7]).result == [7]


def test_a_worker_that_dies(toys: list[Worker], tmp_path: Path) -> None:
    worker = start(toys, tmp_path)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has ended"):
            worker.call("die")


def test_who_can_not_be_started_is_absent(toys: list[Worker], tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no such model"):
        start(toys, tmp_path, "broken")
    with pytest.raises(Absent, match="no such Python"):
        Worker(Setup("x", "toy", tmp_path / "python", Path("fine")), 1, tmp_path / "x.log")


class Quick(Probe):
    def __init__(self) -> None:
        self.measured = 0

    def measure(self) -> None:
        self.measured += 1


def test_decode_steps_are_taken_in_turn(toys: list[Worker], tmp_path: Path) -> None:
    workers = {"a": start(toys, tmp_path), "b": start(toys, tmp_path, answer=1)}
    probe = Quick()
    found = decode(workers, batch=2, context=3, steps=7, vocab=200, rounds=3, probe=probe)
    assert probe.measured == 3
    assert found.seconds == {"a": [0.001] * 7, "b": [0.002] * 7}
    assert found.tokens == {"a": [[0] * 8] * 2, "b": [[1] * 8] * 2}
    assert not found.failures


def test_prompts_are_the_same_for_all_and_new_each_round(toys: list[Worker], tmp_path: Path) -> None:
    workers = {"a": start(toys, tmp_path), "b": start(toys, tmp_path)}
    found = prefill(workers, tokens=4, vocab=5000, rounds=3, probe=Quick())
    assert found.tokens["a"] == found.tokens["b"]
    assert len({tuple(tokens) for tokens in found.tokens["a"]}) == 4
    assert [len(seconds) for seconds in found.seconds.values()] == [3, 3], "the first round warms up"


def test_one_that_fails_is_a_row_and_the_others_go_on(toys: list[Worker], tmp_path: Path) -> None:
    workers = {"a": start(toys, tmp_path), "b": start(toys, tmp_path)}
    with pytest.raises(RuntimeError):
        workers["b"].call("die")
    found = decode(workers, batch=1, context=3, steps=4, vocab=200, rounds=2, probe=Quick())
    assert found.seconds == {"a": [0.001] * 4}
    assert found.failures == {"b": "the worker has ended"}


def test_another_one_begins_each_round() -> None:
    workers: dict[str, Worker] = dict.fromkeys("abc")  # type: ignore[arg-type]
    assert [[name for name, _ in in_turn(workers, i)] for i in range(4)] == [
        list(s) for s in ("abc", "bca", "cab", "abc")
    ]


def test_random_prompts_can_be_drawn_again() -> None:
    assert (
        random_prompts(2, 5, 1000, seed=1) == random_prompts(2, 5, 1000, seed=1) != random_prompts(2, 5, 1000, seed=2)
    )
