from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from benchmarks.client import Answer, ask, chat_body, digest, served_model
from benchmarks.datasets import Case, Turn

from .conftest import FakeServer

HI = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}


def case(*turns: Turn) -> Case:
    return Case("1", "task", "en", "exact", turns, ("yes",), {})


def test_messages(tmp_path: Path) -> None:
    picture, sound = tmp_path / "a.JPG", tmp_path / "b.wav"
    picture.write_bytes(b"jpeg")
    sound.write_bytes(b"wave")
    asked = case(Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three", (picture,), (sound,)))
    body = chat_body(asked, "m", 8, 0.5)
    assert body == {
        "model": "m",
        "max_tokens": 8,
        "temperature": 0.5,
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded(b'jpeg')}"}},
                    {"type": "input_audio", "input_audio": {"data": encoded(b"wave"), "format": "wav"}},
                    {"type": "text", "text": "three"},
                ],
            },
        ],
    }


def test_other_fields() -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 9, "top_k": 1, "temperature": None}
    body = chat_body(case(Turn("user", "hi")), "fake", 8, 0, fields)
    assert body == HI | {"max_completion_tokens": 9, "top_k": 1}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_digest_is_of_what_is_sent(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"1")
    asked = case(Turn("user", "?", (picture,)))
    first = digest(chat_body(asked, "m", 8, 0))
    assert digest(chat_body(replace(asked, id="2", references=("no",)), "m", 8, 0)) == first
    picture.write_bytes(b"2")
    others = [digest(chat_body(asked, *settings)) for settings in [("m", 8, 0), ("n", 8, 0), ("m", 9, 0), ("m", 8, 1)]]
    assert len({first, *others}) == 5


def test_ask(server: FakeServer) -> None:
    async def both() -> tuple[str, Answer]:
        async with AsyncOpenAI(base_url=server.url, api_key="secret", max_retries=0) as client:
            return await served_model(client), await ask(client, HI | {"top_k": 1})

    model, answer = asyncio.run(both())
    assert server.bodies == [HI | {"top_k": 1}]
    assert model == "fake"
    assert (answer.text, answer.finish_reason, answer.error) == ("yes", "stop", None)
    assert answer.digest == digest(HI | {"top_k": 1})
    assert answer.tokens == 3
    assert server.keys == {"Bearer secret"}


def test_a_busy_server_is_asked_again_when_it_says(server: FakeServer) -> None:
    server.reply = lambda body: "yes" if len(server.bodies) > 2 else (429, {"Retry-After": "0.05"})

    async def once() -> Answer:
        async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=5) as client:
            return await ask(client, HI)

    answer = asyncio.run(once())
    assert (answer.text, answer.error, len(server.bodies)) == ("yes", None, 3)
    assert 0.1 <= answer.seconds < 1  # the client's own pauses begin at half a second


def test_what_fails_is_an_answer(server: FakeServer) -> None:
    server.reply = lambda body: (400, {})

    async def once(url: str) -> Answer:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await ask(client, HI)

    answer = asyncio.run(once(server.url))
    assert answer.error is not None
    assert answer.error.startswith("BadRequestError: ")
    assert (answer.text, answer.finish_reason) == ("", "error")
    assert str(asyncio.run(once("http://127.0.0.1:9/v1")).error).startswith("APIConnectionError: ")


def test_odd_completions_are_answers_too(server: FakeServer) -> None:
    async def once(**changes: Any) -> Answer:
        server.reply = lambda body: changes
        async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            return await ask(client, HI)

    uncounted = asyncio.run(once(usage={"prompt_tokens": 1}))
    assert (uncounted.text, uncounted.tokens, uncounted.error) == ("yes", 0, None)
    parts = {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}
    listed = asyncio.run(once(choices=[{"index": 0, "message": parts, "finish_reason": "stop"}]))
    assert (listed.text, listed.tokens, listed.finish_reason) == ("", 0, "error")
    assert str(listed.error) == "TypeError: the answer's content is a list, not a text"
    for changes in ({"choices": []}, {"choices": None}, {"choices": [{"index": 0, "message": None}]}):
        assert asyncio.run(once(**changes)).error
