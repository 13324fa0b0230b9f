"""What Python calls of this package: machine code, kept on disk from one process to the next.

numba notices a change only in the file of the function that it has compiled, and can't read what it kept once an
argument's class has moved. So its files are named by a digest of all files here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from . import draw
from . import forward as layers
from .matmul import NO, START

log = logging.getLogger(__name__)

_OPTIONS = {"nogil": True, "error_model": "numpy"}


def _digest() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    function.__qualname__ = f"{function.__name__}_{_DIGEST[:16]}"
    try:
        return numba.njit(function, cache=True, **_OPTIONS)
    except RuntimeError as error:  # no folder that can be written to
        log.warning("compiled anew in every process: %s", error)
        return numba.njit(function, **_OPTIONS)


_DIGEST = _digest()


@_compiled
def forward(
    thread: int, threads: int, shared: Any, x: Any, out: Any, batch: Any, w: Any, cache: Any, b: Any, scratch: Any
) -> None:
    layers.forward(thread, threads, shared, x, out, batch, w, cache, b, scratch)


@_compiled
def project(thread: int, threads: int, shared: Any, x: Any, w: Any, out: Any) -> None:
    """One product with packed weights: x [N, depth] -> out [N, 16 * panels]."""
    layers.share(shared, START, thread, threads, x, len(x), w, START, out, NO)


@_compiled
def choose(scores: Any, highest: Any, lowest: Any, rules: Any, weights: Any, places: Any, out: Any) -> None:
    """`draw.choose` for each row: scores [N, vocab], highest and lowest [N] -> out int64 [N]."""
    for row in range(len(scores)):
        out[row] = draw.choose(scores[row], highest[row], lowest[row], rules, row, weights, places)
