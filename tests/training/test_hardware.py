"""Training starts anew once, with an environment in which glibc keeps freed memory."""

from __future__ import annotations

import os
import sys

import pytest

from training.hardware import KEEP_MEMORY, keep_memory, processor_name, rounded_up


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_the_program_is_started_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEEP_MEMORY:
        monkeypatch.delenv(name, raising=False)
    started = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    keep_memory()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert environment.items() >= KEEP_MEMORY.items()
    assert environment["PATH"] == os.environ["PATH"]

    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    keep_memory()
    assert len(started) == 1


def test_the_processor_has_a_name() -> None:
    name = processor_name()
    assert name
    assert name == name.strip()


def test_lengths_are_rounded_up_to_few_sizes() -> None:
    lengths = range(3000)
    rounded = [rounded_up(length) for length in lengths]
    assert all(length <= up <= length * 1.125 for length, up in zip(lengths, rounded, strict=True))
    assert rounded == sorted(rounded)
    assert len(set(rounded)) < 100
    assert all(rounded_up(up) == up for up in rounded)
