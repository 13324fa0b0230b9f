"""The benchmark's side of a worker: a process that loads one engine and computes when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).parent / "workers"
PROJECT = Path(__file__).parents[2]


class Absent(Exception):
    """An engine that can't be measured here; the message says why, and its log tells more."""


@dataclass(frozen=True)
class Setup:
    """How an engine is started. `worker` is a file's name in workers/; `options` go to its load()."""

    name: str
    worker: str
    python: Path
    model: Path
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


class Worker:
    def __init__(self, setup: Setup, threads: int, log: Path) -> None:
        """Starts it and loads the model. Raises Absent."""
        if not setup.python.exists():
            raise Absent("there is no such Python")
        reading, writing = os.pipe()
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(PROJECT)} | setup.environment
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [str(setup.python), str(WORKERS / f"{setup.worker}.py"), str(writing)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                env=environment,
                cwd=log.parent,
                text=True,
            )
        os.close(writing)
        self._answers = os.fdopen(reading)
        self._log = log
        try:
            self.facts: Mapping[str, Any] = self.call(
                "load", model=str(setup.model), threads=threads, **setup.options
            ).result
        except RuntimeError as error:
            self.close()
            raise Absent(str(error)) from None

    def call(self, op: str, **values: Any) -> Reply:
        """Raises RuntimeError when the worker fails or has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **values}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError("the worker has ended") from None
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the worker has ended")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return Reply(**reply)

    def close(self) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it has ended before
                self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


@dataclass(frozen=True)
class Reply:
    """`seconds` as the worker measured them."""

    seconds: float
    result: Any
