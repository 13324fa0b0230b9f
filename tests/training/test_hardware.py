"""Training starts anew once, with an environment in which freed memory is kept."""

from __future__ import annotations

import os
import sys

import pytest

from training import hardware
from training.hardware import JEMALLOC, KEEP_MEMORY, keep_memory, processor_name


@pytest.mark.skipif(sys.platform != "linux", reason="settings of Linux's allocators")
@pytest.mark.parametrize("installed", ["libjemalloc.so.2", None])
@pytest.mark.parametrize("preloaded", ["libother.so", None])
def test_the_program_is_started_again_once(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, preloaded: str | None
) -> None:
    for name in (*KEEP_MEMORY, *JEMALLOC, "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    if preloaded:
        monkeypatch.setenv("LD_PRELOAD", preloaded)
    monkeypatch.setattr(hardware, "find_library", {"jemalloc": installed}.get)
    started = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    keep_memory()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert environment.items() >= KEEP_MEMORY.items()
    assert environment["PATH"] == os.environ["PATH"]
    assert environment.get("LD_PRELOAD") == (preloaded or installed)
    assert ("MALLOC_CONF" in environment) == (installed is not None and preloaded is None)

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    keep_memory()
    assert len(started) == 1


def test_the_processor_has_a_name() -> None:
    name = processor_name()
    assert name
    assert name == name.strip()
