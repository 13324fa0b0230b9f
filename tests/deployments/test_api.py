"""Answers over HTTP (ASGI, no socket), and what is kept of them."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from deployments.codec import Piece
from pipeline.types import Delta, LogprobText, TokenText

from .clients import official
from .fakes import MODEL, USAGE, House, audio, chat, events, image, logged, pieces, run

TOKEN = LogprobText(TokenText("a", b"a", -0.1), (TokenText("a", b"a", -0.1), TokenText("b", b"b", -2.0)))


class TestAnswer:
    def test_in_one_piece(self, house: House) -> None:
        response = run(house.post())
        assert response.status_code == 200
        body = response.json()
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello, world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"] == {
            "prompt_tokens": 12,
            "completion_tokens": 3,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 5, "image_tokens": 4, "audio_tokens": 3},
        }
        assert (body["object"], body["model"]) == ("chat.completion", MODEL)
        assert house.idle()

    def test_streamed(self, house: House) -> None:
        response = run(house.post(stream=True))
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        role, *most, done = events(response.text)
        assert role["choices"][0]["delta"]["role"] == "assistant"
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in most) == "Hello, world"
        assert most[-1]["choices"][0]["finish_reason"] == "stop"
        assert done == "data: [DONE]"
        assert house.idle()

    def test_usage_of_a_stream(self, house: House) -> None:
        without = events(run(house.post(stream=True)).text)
        assert not any("usage" in chunk for chunk in without[:-1])
        *most, last, _ = events(run(house.post(stream=True, stream_options={"include_usage": True})).text)
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 15)
        assert all(chunk["usage"] is None for chunk in most)

    @pytest.mark.parametrize("stream", [False, True])
    def test_several(self, house: House, stream: bool) -> None:
        house.stages.answers = deque(
            [
                [
                    Piece([Delta(0, "a", (1,)), Delta(1, "x", (2,))], USAGE),
                    Piece([Delta(1, "y", (3,), finish_reason="length")]),
                    Piece([Delta(0, "b", (4,), finish_reason="stop")]),
                ]
            ]
        )
        response = run(house.post(n=2, stream=stream))
        texts, reasons = {0: "", 1: ""}, {}
        for chunk in events(response.text)[:-1] if stream else [response.json()]:
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["delta" if stream else "message"]["content"] or ""
                reasons[choice["index"]] = choice["finish_reason"]
        assert texts == {0: "ab", 1: "xy"}
        assert reasons[0] == "stop"
        assert house.stages.requests[0].n == 2

    def test_the_official_client(self, house: House) -> None:
        house.stages.answers = deque(
            [
                [Piece([Delta(0, "a", (1,), (TOKEN,))], USAGE), Piece([Delta(0, "", (2,), (), "stop")])],
                pieces("Hel", "lo"),
                pieces("again"),
            ]
        )

        async def main() -> None:
            async with official(house) as client:
                content = [{"type": "text", "text": "What?"}, image(), audio()]
                ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
                answer = await client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
                assert answer.choices[0].message.content == "a"
                (token,) = answer.choices[0].logprobs.content
                assert [(top.token, top.logprob) for top in token.top_logprobs] == [("a", -0.1), ("b", -2.0)]

                stream = await client.chat.completions.create(
                    **ask, stream=True, stream_options={"include_usage": True}, extra_body={"top_k": 5}
                )
                chunks = [chunk async for chunk in stream]
                assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
                assert chunks[-1].usage.completion_tokens == 2

                ask["messages"] += [answer.choices[0].message, {"role": "user", "content": "Sure?"}]
                answer = await client.chat.completions.create(**ask)
                assert answer.choices[0].message.content == "again"

                assert [model.id async for model in client.models.list()] == [MODEL]
                assert (await client.models.retrieve(MODEL)).id == MODEL

        run(main())
        assert [request.params.logprobs for request in house.stages.requests] == [2, None, None]
        assert house.stages.requests[1].params.top_k == 5
        assert len(house.stages.encoded) == 2

    def test_the_clients_request_id_goes_along(self, house: House) -> None:
        async def main() -> None:
            async with house.client() as client:
                answer = await client.post("/v1/chat/completions", json=chat(), headers={"x-request-id": "mine"})
                assert answer.json()["id"] == "chatcmpl-mine"
                await client.post("/v1/chat/completions", json=chat())

        run(main())
        ids = [request.request_id for request in house.stages.requests]
        assert ids[0] == "mine"
        assert ids[1] not in ("", "mine")

    def test_a_long_request_id_is_cut(self, house: House) -> None:
        async def main() -> None:
            async with house.client() as client:
                headers = {"x-request-id": "x" * 5000}
                answer = await client.post("/v1/chat/completions", json=chat(), headers=headers)
                assert answer.json()["id"] == "chatcmpl-" + "x" * 128

        run(main())


class TestBooks:
    def test_tokens_and_times(self, house: House) -> None:
        run(house.post(stream=True))
        tokens = house.metrics["tokens"]
        assert {kind: tokens.total(kind=kind) for kind in ("text", "image", "audio", "output")} == {
            "text": 5,
            "image": 4,
            "audio": 3,
            "output": 3,
        }
        assert len(house.metrics["ttft"].seen) == len(house.metrics["tpot"].seen) == 1
        assert [value for value, _ in house.metrics["active"].seen] == [1, 0]
        assert house.metrics["requests"].seen == [(1.0, {"status": "200"})]

    def test_the_time_of_a_token_is_that_of_one_answer(self, house: House) -> None:
        """Two answers side by side: each token of both together took half as long as one of either."""
        both = [Piece([Delta(0, "a", (1,)), Delta(1, "b", (2,))], USAGE)]
        both += [Piece([Delta(i, "c", (3,) * 10, finish_reason="stop") for i in (0, 1)], None)]
        house.stages.answers = deque([[both[0], 0.1, both[1]]])
        assert run(house.post(n=2, stream=True)).status_code == 200
        ((seconds, _),) = house.metrics["tpot"].seen
        assert seconds >= 0.01

    def test_one_line_a_request(self, house: House) -> None:
        with logged() as records:
            run(house.post(content=[image()]))
        (line,) = [text for record in records if (text := record.getMessage()).startswith("completed ")]
        fields = json.loads(line.removeprefix("completed "))
        assert fields["request_id"] == house.stages.requests[0].request_id
        assert (fields["status"], fields["images"], fields["completion_tokens"]) == (200, 1, 3)
        assert (fields["prompt_tokens"], fields["image_tokens"], fields["audio_tokens"]) == (12, 4, 3)
        assert fields["media_cache"] == {"miss": 1}
        assert {"fetch_seconds", "encode_seconds", "ttft_seconds", "seconds"} <= set(fields)

    def test_our_own_bug_is_logged_once(self, house: House) -> None:
        house.stages.answers = deque([[ValueError("a bug")]])
        with logged() as records:
            run(house.post())
        (record,) = [record for record in records if record.levelname == "ERROR"]
        assert record.exc_info is not None
        assert "a bug" in str(record.exc_info[1])
