from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from deployments.api_errors import ApiError
from deployments.completion import Trace
from deployments.sse import DONE, Reply, choice_logprobs, collect, error_event, finish, stream
from pipeline.types import Delta, LogprobText, PromptUsage, TokenText

from .fakes import events, run


def reply(*, logprobs: bool = False, include_usage: bool = False) -> Reply:
    trace = Trace("abc")
    trace.usage, trace.completion_tokens = PromptUsage(12, 4, 3, 5), 2
    return Reply(trace, "m", logprobs, include_usage)


async def source(*pieces: list[Delta] | Exception) -> AsyncIterator[list[Delta]]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def chunks(*pieces: list[Delta], n: int = 1, **options: bool) -> list[Any]:
    async def main() -> str:
        return "".join([chunk async for chunk in stream(source(*pieces), reply(**options), n)])

    return events(run(main()))


TOKEN = LogprobText(
    TokenText("猫", "猫".encode(), -0.5),
    (TokenText("猫", "猫".encode(), -0.5), TokenText("\ufffd", b"\xe7", float("-inf"))),
)


def test_chunks() -> None:
    first, second, third, last = chunks([Delta(0, "Hello", (1,))], [Delta(0, " world", (2,), finish_reason="stop")])
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert [c["choices"][0]["delta"]["content"] for c in (second, third)] == ["Hello", " world"]
    assert [c["choices"][0]["finish_reason"] for c in (second, third)] == [None, "stop"]
    assert last == DONE.strip()
    for chunk in (first, second, third):
        assert "usage" not in chunk
        assert (chunk["id"], chunk["object"], chunk["model"]) == ("chatcmpl-abc", "chat.completion.chunk", "m")
        assert chunk["created"] == first["created"]
        ChatCompletionChunk.model_validate(chunk)


def test_usage_comes_last_when_asked_for() -> None:
    *most, last, done = chunks([Delta(0, "x", (1,), finish_reason="stop")], include_usage=True)
    assert done == DONE.strip()
    assert all(chunk["usage"] is None for chunk in most)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 2,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 5, "image_tokens": 4, "audio_tokens": 3},
    }
    ChatCompletionChunk.model_validate(last)


def test_several_answers() -> None:
    first, second, _, _ = chunks(
        [Delta(0, "a", (1,)), Delta(1, "b", (2,), finish_reason="length")],
        [Delta(0, "c", (3,), finish_reason="stop")],
        n=2,
    )
    assert [choice["index"] for choice in first["choices"]] == [0, 1]
    assert [(c["index"], c["delta"]["content"]) for c in second["choices"]] == [(0, "a"), (1, "b")]


def test_logprobs_only_when_asked_for() -> None:
    delta = Delta(0, "猫", (1,), (TOKEN,))
    _, without, _ = chunks([delta])
    assert without["choices"][0]["logprobs"] is None
    _, chunk, _ = chunks([delta], logprobs=True)
    ChatCompletionChunk.model_validate(chunk)
    (token,) = chunk["choices"][0]["logprobs"]["content"]
    assert (token["token"], bytes(token["bytes"]), token["logprob"]) == ("猫", "猫".encode(), -0.5)
    # JSON has no minus infinity; half a character is told by its bytes.
    assert (token["top_logprobs"][1]["bytes"], token["top_logprobs"][1]["logprob"]) == ([0xE7], -9999.0)


def test_newlines_do_not_end_an_event() -> None:
    _, chunk, _ = chunks([Delta(0, "a\n\nb\r\ndata: [DONE]\u2028", (1,))])
    assert chunk["choices"][0]["delta"]["content"] == "a\n\nb\r\ndata: [DONE]\u2028"


def test_an_error_passes_through() -> None:
    async def main() -> None:
        parts = stream(source([Delta(0, "x", (1,))], ValueError("x")), reply(), 1)
        assert len([await anext(parts), await anext(parts)]) == 2
        with pytest.raises(ValueError, match="x"):
            await anext(parts)

    run(main())


def test_error_event() -> None:
    error = ApiError(504, "too late", code="timeout")
    assert events(error_event(error)) == [
        {"error": {"message": "too late", "type": "server_error", "param": None, "code": "timeout"}}
    ]


def test_collect() -> None:
    async def main() -> Any:
        parts = source(
            [Delta(1, "b", (1,)), Delta(0, "a", (1,), (TOKEN,))],
            [Delta(0, "A", (2,), (TOKEN,), finish_reason="length"), Delta(1, "", (2,), finish_reason="stop")],
        )
        return (await collect(parts, reply(logprobs=True), 2)).model_dump()

    body = run(main())
    answer = ChatCompletion.model_validate(json.loads(json.dumps(body)))
    assert [(c.message.content, c.finish_reason) for c in answer.choices] == [("aA", "length"), ("b", "stop")]
    assert [len(c.logprobs.content or []) for c in answer.choices if c.logprobs] == [2, 0]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14


def test_collect_without_logprobs() -> None:
    answer = run(collect(source([Delta(0, "a", (1,), (TOKEN,), "stop")]), reply(), 1))
    assert answer.choices[0].logprobs is None


@pytest.mark.parametrize(("reason", "word"), [(None, None), ("stop", "stop"), ("length", "length"), ("abort", "stop")])
def test_finish(reason: Any, word: str | None) -> None:
    assert finish(Delta(0, "", finish_reason=reason)) == word


def test_no_tokens_no_logprobs() -> None:
    assert choice_logprobs(()).content == []
