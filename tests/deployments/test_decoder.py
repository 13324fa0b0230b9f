"""The decoder's replica, without a cluster: what it sends of an answer, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.decoder import LanguageDecoder
from deployments.settings import AppArgs
from pipeline.driver import merge
from pipeline.types import ChatRequest, Message, SamplingParams

from .fakes import Recorder, logged


@pytest.fixture(scope="module")
def decoder() -> Iterator[Any]:
    replica = LanguageDecoder.func_or_class(AppArgs(checkpoint="checkpoints/megrez-omni-mini"))
    yield replica
    replica.driver.close()


def request(stream: bool, max_tokens: int = 12) -> ChatRequest:
    params = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, logprobs=1)
    return ChatRequest((Message("user", "Who wrote Hamlet?"),), params, 2, "name", stream)


def pieces_of(decoder: Any, asked: ChatRequest) -> list[Any]:
    async def collected() -> list[Any]:
        return [piece async for piece in decoder.generate(asked)]

    return asyncio.run(asyncio.wait_for(collected(), 30))


def test_an_answer_that_nobody_reads_along_comes_in_two_pieces(decoder: Any) -> None:
    streamed, whole = pieces_of(decoder, request(stream=True)), pieces_of(decoder, request(stream=False))
    assert len(streamed) >= 12
    assert len(whole) == 2
    assert [len(delta.token_ids) for delta in whole[0].deltas] == [1, 1]  # told at once: the first tokens' time counts
    both = [merge([delta for piece in pieces for delta in piece.deltas]) for pieces in (streamed, whole)]
    assert both[0] == both[1]
    assert [len(delta.token_ids) for delta in both[0]] == [12, 12]
    for pieces in (streamed, whole):
        assert [piece.usage is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)


def test_tokens_are_counted_once(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the engine is looked at; what was counted before belongs to earlier requests."""
    counters = {name: Recorder() for name in ("prompt_tokens", "found_tokens")}
    before = decoder.driver.stats
    for name, recorder in counters.items():
        monkeypatch.setattr(decoder.metrics, name, recorder)
    for _ in range(2):
        pieces_of(decoder, request(stream=True))
    after = decoder.driver.stats
    for name, recorder in counters.items():
        assert recorder.total() == getattr(after, name) - getattr(before, name)
    assert counters["prompt_tokens"].total() > 0


def test_a_replica_that_runs_keeps_its_settings_where_new_ones_are_wrong(decoder: Any) -> None:
    with pytest.raises(ValidationError):  # it starts with these
        asyncio.run(decoder.reconfigure({"max_runing": 3}))
    asyncio.run(decoder.reconfigure({"max_running": 7}))
    with logged() as lines:
        asyncio.run(decoder.reconfigure({"max_runing": 3}))
    pieces_of(decoder, request(stream=False, max_tokens=1))  # by now the engine has obeyed
    assert decoder.driver.generator.engine.scheduler.max_running == 7
    (line,) = (line for line in lines if line.getMessage().startswith("settings_refused"))
    assert line.levelname == "ERROR"
    assert "max_runing" in line.getMessage()


def test_an_answer_of_one_token_is_one_piece(decoder: Any) -> None:
    assert len(pieces_of(decoder, request(stream=False, max_tokens=1))) == 1


def test_who_leaves_between_the_pieces_frees_everything(decoder: Any) -> None:
    async def scene() -> None:
        pieces = decoder.generate(request(stream=False, max_tokens=3000))
        await anext(pieces)
        rest = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0.1)
        assert not rest.done()
        rest.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rest
        await pieces.aclose()
        for _ in range(200):
            if decoder.driver.stats.blocks_used == 0:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("blocks are still held")

    asyncio.run(asyncio.wait_for(scene(), 30))
