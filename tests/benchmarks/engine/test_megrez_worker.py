"""This project's own worker, in its process, on the default checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.engine import properties
from benchmarks.engine.process import Setup, Worker
from benchmarks.engine.roofline import Machine
from benchmarks.engine.workloads import random_prompts
from pipeline.config import ModelConfig
from pipeline.omni import Omni

VOCAB = 2000


@pytest.fixture(scope="module")
def worker(mini_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("worker") / "log"
    made = Worker(Setup("megrez", "megrez", Path(sys.executable), mini_path), 1, log)
    yield made
    made.close()


def test_it_says_what_the_model_says(worker: Worker, mini_omni: Omni) -> None:
    prompts = random_prompts(3, 70, VOCAB, seed=1)
    wanted = [mini_omni.generate([p], max_new_tokens=9, temperature=0, ignore_eos=True) for p in prompts]
    assert worker.call("prefill", prompt=prompts[0]).result == wanted[0][:1]
    worker.call("start", prompts=prompts)
    seconds = worker.call("steps", count=8).result
    assert len(seconds) == 8
    assert min(seconds) > 0
    assert worker.call("finish").result == wanted


def test_pictures_change_what_it_reads_not_how_long_it_is(worker: Worker) -> None:
    prompts = random_prompts(2, 70, VOCAB, seed=2)
    worker.call("start", prompts=prompts, media_tokens=64)
    worker.call("steps", count=3)
    assert [len(tokens) for tokens in worker.call("finish").result] == [4, 4]


def test_its_properties(worker: Worker, mini_path: Path) -> None:
    config = ModelConfig.from_pretrained(mini_path).decoder
    rows = [
        *properties.bookkeeping(worker, VOCAB),
        *properties.growth(worker, config, Machine(1e10, 1e11), lengths=(64, 256)),
        *properties.disturbance(worker, VOCAB, tokens=600),
        *properties.repetition(worker, VOCAB, rounds=2),
    ]
    assert len(rows) == 10
    assert all(row.value is not None and row.value > 0 for row in rows)
    share, first, again = rows[0], rows[-2], rows[-1]
    assert share.unit == "%"
    assert again.value < first.value / 2, "the second time it is found in the cache"  # type: ignore[operator]
