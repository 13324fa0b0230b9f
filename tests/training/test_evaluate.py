"""The evaluation asks a server everything and puts what came out into the card; the server is a stand-in here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import training.evaluate
from tests.benchmarks.conftest import FakeServer, server
from training.evaluate import HELD_OUT_SEED, main
from training.synthetic.world import LANGUAGES, TASKS

from .synthetic.needs_fonts import needs_fonts

pytestmark = needs_fonts

__all__ = ["server"]  # the fixture


def test_every_task_is_asked_and_the_card_is_written(
    tiny_path: Path, tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, work = tmp_path / "checkpoint", tmp_path / "work"
    shutil.copytree(tiny_path, checkpoint)

    @contextmanager
    def served(path: Path, where: Path) -> Iterator[str]:
        assert (path, where) == (checkpoint, work)
        yield server.url.removesuffix("/v1")

    monkeypatch.setattr(training.evaluate, "served", served)
    monkeypatch.setattr(sys, "argv", ["evaluate", str(checkpoint), "--work", str(work), "--count", "1"])
    main()
    result = json.loads((work / "accuracy.json").read_text())
    assert {(group["task"], group["language"]) for group in result["groups"]} == {
        (task, language) for task in TASKS for language in LANGUAGES
    }
    assert len(server.bodies) == 3 * 2 + len(TASKS) * 2
    card = (checkpoint / "README.md").read_text()
    assert f"asked {len(TASKS) * 2} questions, {len(TASKS) * 2} different ones" in " ".join(card.split())
    assert f"evaluate {checkpoint} --count 1 --seed {HELD_OUT_SEED}" in " ".join(card.split())
    assert "Of them 6 short texts" in card


def test_a_benchmark_that_could_not_ask_ends_the_evaluation(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 2"):
        training.evaluate.ask("http://127.0.0.1:9", tmp_path / "none.jsonl", tmp_path / "result.json")
