"""The decoder's replica, without a cluster: what it sends of an answer, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from deployments.codec import pack
from deployments.decoder import LanguageDecoder
from deployments.settings import AppArgs
from pipeline.driver import merge
from pipeline.types import AudioEmbeds, ChatRequest, Message, SamplingParams

from .fakes import Recorder, logged


def start(**engine: Any) -> Any:
    args = {"checkpoint": "checkpoints/megrez-omni-mini", "engine": engine}
    return LanguageDecoder.func_or_class(AppArgs.model_validate(args))


@pytest.fixture(scope="module")
def decoder() -> Iterator[Any]:
    replica = start()
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
    asyncio.run(decoder.reconfigure({"max_running": 7, "step_ms": 250}))
    with logged() as lines:
        asyncio.run(decoder.reconfigure({"max_runing": 3}))
        asyncio.run(decoder.reconfigure({"max_batch_tokens": 6, "max_running": 7}))
    pieces_of(decoder, request(stream=False, max_tokens=1))  # by now the engine has obeyed
    scheduler = decoder.driver.generator.engine.scheduler
    assert (scheduler.max_running, scheduler.budget.step_seconds, scheduler.budget.max_tokens) == (7, 0.25, 512)
    refused = [line for line in lines if line.getMessage().startswith("settings_refused")]
    assert [line.levelname for line in refused] == ["ERROR"] * 2
    assert "max_runing" in refused[0].getMessage()
    assert "at least max_running" in refused[1].getMessage()


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


def test_tokens_that_were_in_the_cache_are_told(decoder: Any) -> None:
    long = ChatRequest(
        (Message("user", "one two three four five six seven eight nine ten " * 12),),
        SamplingParams(max_tokens=3, temperature=0),
        request_id="long",
    )
    told = [next(piece.usage for piece in pieces_of(decoder, long) if piece.usage) for _ in range(2)]
    assert told[0].cached_tokens < 64
    assert 64 <= told[1].cached_tokens < told[1].prompt_tokens


def test_sharing_what_was_computed_can_be_switched_off(decoder: Any) -> None:
    assert decoder.driver.generator.engine.blocks.sharing
    alone = start(kv_cache_tokens=512, prefix_caching=False)
    assert not alone.driver.generator.engine.blocks.sharing
    alone.driver.close()


def test_each_medium_keeps_its_own_key(decoder: Any) -> None:
    width = decoder.driver.generator.engine._width
    media = {f"media_{i}": pack(AudioEmbeds(torch.full((3, width), float(i)), (3,))) for i in range(2)}
    message = Message("user", "Which?", audios=(0, 1))
    asked = ChatRequest((message,), SamplingParams(), request_id="keys", media_keys=("a", "b"))
    prompt, embeds = decoder._prepare(asked, media)
    assert [(medium.key, float(medium.embeds[0, 0])) for medium in embeds] == [("a", 0.0), ("b", 1.0)]
    assert [span.key for span in prompt.spans] == ["a", "b"]


def test_a_stopped_engine_is_unhealthy() -> None:
    """Serve replaces a replica whose check raises."""
    replica = start()
    asyncio.run(replica.check_health())
    replica.driver.close()
    with pytest.raises(RuntimeError):
        asyncio.run(replica.check_health())
