from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from pipeline.engine import memory
from pipeline.engine.memory import CacheBudget, free_memory
from pipeline.errors import MegrezError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("budget", "blocks"),
    [
        (CacheBudget(blocks=3), 3),
        (CacheBudget(tokens=1000), 15),
        (CacheBudget(nbytes=1_000_000), 10),
    ],
)
def test_budgets(budget: CacheBudget, blocks: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert budget.size(64, 100_000, CPU) == blocks
    assert f"{blocks} blocks of 64 tokens: {blocks * 64} tokens" in caplog.text


def test_a_fraction_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_memory(CPU) == 4_096_000
    assert CacheBudget(fraction=0.5).size(64, 100_000, CPU) == 20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_memory(CPU) == 4_096_000
    (tmp_path / "memory.max").write_text("3000000\n")
    assert free_memory(CPU) == 2_000_000, "a container has less than its machine"
    (tmp_path / "memory.stat").write_text("anon 500000\nfile 400000\ninactive_file 300000\n")
    assert free_memory(CPU) == 2_300_000, "what it has read from files can go"


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    with pytest.raises(MegrezError, match="bytes or tokens"):
        free_memory(CPU)


@pytest.mark.parametrize(
    "budget", [CacheBudget(tokens=63), CacheBudget(nbytes=99_999), CacheBudget(blocks=0), CacheBudget(fraction=1e-12)]
)
def test_not_one_block(budget: CacheBudget) -> None:
    with pytest.raises(MegrezError, match="not one block of 64 tokens, 100,000 bytes"):
        budget.size(64, 100_000, CPU)


@pytest.mark.parametrize("budget", [CacheBudget(), CacheBudget(tokens=64, nbytes=10**6), CacheBudget(fraction=1.0)])
def test_budgets_that_make_no_sense(budget: CacheBudget) -> None:
    with pytest.raises(MegrezError, match="KV cache"):
        budget.size(64, 100_000, CPU)
