"""What Python calls of this package: machine code, kept on disk from one process to the next.

numba notices a change only in the file of the function that it has compiled; the digest of all files here, which
each function refers to, makes it notice the others'.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from . import choice
from . import forward as layers
from .matmul import NO, START

log = logging.getLogger(__name__)

_OPTIONS = {"nogil": True, "error_model": "numpy"}


def _digest() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _compile(function: Callable[..., None]) -> Callable[..., None]:
    try:
        return numba.njit(function, cache=True, **_OPTIONS)
    except RuntimeError as error:  # no folder that can be written to
        log.warning("compiled anew in every process: %s", error)
        return numba.njit(function, **_OPTIONS)


def _functions(digest: str) -> tuple[Callable[..., None], ...]:
    def forward(
        thread: int, threads: int, shared: Any, x: Any, out: Any, batch: Any, w: Any, cache: Any, b: Any, scratch: Any
    ) -> None:
        digest  # noqa: B018
        layers.forward(thread, threads, shared, x, out, batch, w, cache, b, scratch)

    def project(thread: int, threads: int, shared: Any, x: Any, w: Any, out: Any) -> None:
        """One product with packed weights: x [N, depth] -> out [N, 16 * panels]."""
        digest  # noqa: B018
        layers.share(shared, START, thread, threads, x, len(x), w, START, out, NO)

    def choose(scores: Any, highest: Any, lowest: Any, rules: Any, weights: Any, places: Any, out: Any) -> None:
        """`choice.choose` for each row: scores [N, vocab], highest and lowest [N] -> out int64 [N]."""
        digest  # noqa: B018
        for row in range(len(scores)):
            out[row] = choice.choose(scores[row], highest[row], lowest[row], rules, row, weights, places)

    return _compile(forward), _compile(project), _compile(choose)


forward, project, choose = _functions(_digest())
