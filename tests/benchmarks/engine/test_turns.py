from __future__ import annotations

import asyncio

from benchmarks.engine.turns import ANSWER, BOOKKEEPING, DEVICE, serve


def test_each_stream_gets_its_answer() -> None:
    measured = asyncio.run(serve(2))
    assert ANSWER <= measured.steps <= ANSWER + 2, "the second may begin a little later"
    assert 2 <= measured.pieces <= 2 * ANSWER
    assert measured.step > DEVICE + BOOKKEEPING
