"""The routes over HTTP (ASGI, no socket), and what a client sees when things go wrong."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors

from deployments.codec import Piece
from pipeline.errors import ContextOverflow, GenerationFailed, InvalidMedia, MediaTooLarge, Overloaded
from pipeline.types import Delta, LogprobText, TokenText

from .fakes import (
    MODEL,
    STAGES,
    USAGE,
    House,
    RawClient,
    Step,
    audio,
    chat,
    events,
    image,
    logged,
    pieces,
    run,
    task_error,
    until,
)

FIRST = pieces("Hello", ", ", "world")[:1]
TOKEN = LogprobText(TokenText("a", b"a", -0.1), (TokenText("a", b"a", -0.1), TokenText("b", b"b", -2.0)))


@asynccontextmanager
async def official(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx.ASGITransport(house.api)
    async with httpx.AsyncClient(transport=transport) as http:
        yield openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0)


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
            "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 4, "audio_tokens": 3},
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


BEFORE: list[tuple[BaseException, int, str]] = [
    (task_error(InvalidMedia("m", "p")), 400, "invalid_media"),
    (task_error(ContextOverflow("m")), 400, "context_length_exceeded"),
    (task_error(MediaTooLarge("m")), 413, "media_too_large"),
    (task_error(Overloaded("m")), 429, "overloaded"),
    (serve_errors.BackPressureError(1, 1), 429, "overloaded"),
    (ray_errors.ActorDiedError(), 503, "stage_died"),
    (TimeoutError(), 504, "timeout"),
    (task_error(GenerationFailed("m")), 500, "generation_failed"),
    (ValueError("our secret"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), BEFORE, ids=lambda v: v if isinstance(v, str) else None)
@pytest.mark.parametrize("stream", [False, True])
class TestErrors:
    def test_before_the_first_token(
        self, house: House, error: BaseException, status: int, code: str, stream: bool
    ) -> None:
        house.stages.answers = deque([[error]])
        response = run(house.post(stream=stream))
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        body = response.json()["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert body["code"] == code
        assert "secret" not in response.text
        assert ("retry-after" in response.headers) == (status in (429, 503))
        assert house.metrics["requests"].seen == [(1.0, {"status": str(status)})]
        assert house.idle()

    def test_after_the_first_token(
        self, house: House, error: BaseException, status: int, code: str, stream: bool
    ) -> None:
        house.stages.answers = deque([[*FIRST, error]])
        response = run(house.post(stream=stream))
        if stream:
            assert response.status_code == 200
            *_, piece, last = events(response.text)
            assert piece["choices"][0]["delta"]["content"] == "Hello"
            assert last["error"]["code"] == code
            assert "[DONE]" not in response.text
        else:
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert "secret" not in response.text
        assert house.metrics["requests"].seen == [(1.0, {"status": str(status)})]
        assert house.idle()


def test_the_official_client_sees_a_late_error(house: House) -> None:
    house.stages.answers = deque([[*FIRST, ray_errors.ActorDiedError()]])

    async def main() -> None:
        async with official(house) as client:
            messages: Any = chat()["messages"]
            stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
            got = ""
            with pytest.raises(openai.APIError, match="went away"):  # noqa: PT012
                async for chunk in stream:
                    got += chunk.choices[0].delta.content or ""
            assert got == "Hello"

    run(main())


class TestDeadline:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("where", ["encoding", "before"])
    def test_before_the_first_token(self, house: House, where: str, stream: bool) -> None:
        house.configure(request_seconds=0.3)
        if where == "encoding":
            house.stages.encodings = deque([[5.0]])
        else:
            house.stages.answers = deque([[5.0]])
        response = run(post(house, [image()], stream=stream))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        assert house.stages.encode_cancelled == (where == "encoding")
        assert house.stages.left == (where == "before")
        assert house.idle()

    def test_after_the_first_token(self, house: House) -> None:
        house.configure(request_seconds=0.3)
        house.stages.answers = deque([[*FIRST, 5.0]])
        response = run(house.post(stream=True))
        *_, last = events(response.text)
        assert last["error"]["code"] == "timeout"
        assert house.stages.left == 1
        assert house.metrics["requests"].total(status="504") == 1
        assert house.idle()

    @pytest.mark.parametrize("stalled", [1, 2, 3])
    def test_a_reader_that_stalls_past_it(self, house: House, stalled: int) -> None:
        """The deadline may pass while a chunk is on its way out: the reader is told, not cut off."""
        house.configure(request_seconds=0.3)
        house.stages.answers = deque([[*pieces("a", "b", "c")[:2], 5.0]])

        async def main() -> None:
            client = RawClient(house.api, chat(stream=True), spec_version="2.4")
            client.stall[stalled] = 0.5
            await client.start()
            assert events(client.text)[-1]["error"]["code"] == "timeout"
            assert not client.sent[-1]["more_body"]
            assert house.idle()

        run(main())


async def post(house: House, content: Any, **fields: Any) -> httpx.Response:
    async with house.client() as client:
        return await client.post("/v1/chat/completions", json=chat(content, **fields))


class TestLeaving:
    """A client that hangs up, at any moment, leaves nothing behind."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("where", ["encoding", "before", "after"])
    def test_cancelled(self, house: House, where: str, stream: bool) -> None:
        # Serve cancels the request's task.
        scripts: dict[str, list[Step]] = {"encoding": [], "before": [5.0], "after": [*FIRST, 5.0]}
        house.stages.answers = deque([scripts[where]])
        house.stages.encodings = deque([[5.0] if where == "encoding" else []])

        async def main() -> None:
            client = RawClient(house.api, chat([image()], stream=stream))
            task = client.start()
            await until(lambda: house.stages.encoding if where == "encoding" else house.stages.open)
            await asyncio.sleep(0.02)
            assert house.service.active == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(house.idle, 1)
            assert house.stages.encode_cancelled == (where == "encoding")
            assert house.stages.left == (where != "encoding")
            assert house.metrics["requests"].seen == [(1.0, {"status": "499"})]

        run(main())

    @pytest.mark.parametrize("slow_close", [0.0, 0.01])
    def test_disconnected_while_streaming(self, house: House, slow_close: float) -> None:
        # Starlette cancels again at each await until the response has ended: closing must survive it.
        house.stages.answers = deque([[*FIRST, 5.0]])
        house.stages.slow_close = slow_close

        async def main() -> None:
            client = RawClient(house.api, chat(stream=True))
            task = client.start()
            await until(lambda: "Hello" in client.text)
            client.gone.set()
            await asyncio.wait_for(task, 2)
            await until(house.idle, 1)
            assert house.stages.left == 1
            assert house.metrics["requests"].total(status="499") == 1

        run(main())

    def test_disconnected_before_the_response_began(self, house: House) -> None:
        async def main() -> None:
            client = RawClient(house.api, chat(stream=True))
            client.gone.set()
            await asyncio.wait_for(client.start(), 2)
            await until(house.idle, 1)

        run(main())

    def test_the_connection_breaks_at_the_first_byte(self, house: House) -> None:
        async def main() -> None:
            client = RawClient(house.api, chat(stream=True), spec_version="2.4")

            async def broken(message: Any) -> None:
                raise OSError("broken pipe")

            client.send = broken  # type: ignore[method-assign]
            await asyncio.gather(client.start(), return_exceptions=True)
            await until(house.idle, 1)

        run(main())

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_the_connection_breaks_later(self, house: House, number: int) -> None:
        house.stages.answers = deque([[*FIRST, *pieces("a", "b")]])

        async def main() -> None:
            client = RawClient(house.api, chat(stream=True), spec_version="2.4")
            send = client.send

            async def broken(message: Any) -> None:
                if len(client.sent) == number:
                    raise OSError("broken pipe")
                await send(message)

            client.send = broken  # type: ignore[method-assign]
            await asyncio.gather(client.start(), return_exceptions=True)
            await until(house.idle, 1)

        run(main())


class TestAdmission:
    @pytest.mark.parametrize("stream", [False, True])
    def test_one_too_many(self, house: House, stream: bool) -> None:
        async def main() -> None:
            gate = asyncio.Event()
            house.configure(max_requests=2)
            house.stages.answers = deque([[gate, *pieces("x")]])
            served = [asyncio.ensure_future(house.post(stream=stream)) for _ in range(2)]
            await until(lambda: house.stages.open == 2)
            refused = await house.post(stream=stream)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            gate.set()
            assert [answer.status_code for answer in await asyncio.gather(*served)] == [200, 200]
            assert (await house.post()).status_code == 200

        run(main())
        assert house.idle()

    def test_a_burst_is_answered_one_by_one(self, house: House) -> None:
        async def main() -> None:
            house.configure(max_requests=50)
            house.stages.answers = deque([[0.05, *pieces("x")]])
            answers = await asyncio.gather(*(house.post(stream=bool(i % 2)) for i in range(200)))
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) == {200, 429}
            assert statuses.count(200) >= 50

        run(main())
        assert house.idle()

    @pytest.mark.parametrize("fields", [{"temperature": 5}, {"model": "gpt-4"}, {"messages": []}])
    def test_a_refused_request_takes_no_place(self, house: House, fields: dict[str, Any]) -> None:
        house.configure(max_requests=1)
        for _ in range(3):
            assert run(house.post(**fields)).status_code in (400, 404)
        assert run(house.post()).status_code == 200


class TestRefusals:
    def test_unknown_model(self, house: House) -> None:
        response = run(house.post(model="gpt-4"))
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert MODEL in error["message"]

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nowhere", 404, "not_found"),
            ("GET", "/", 404, "not_found"),
            ("POST", "/v1/completions", 404, "not_found"),
            ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
            ("DELETE", "/v1/models", 405, "method_not_allowed"),
            ("GET", "/v1/models/gpt-4", 404, "model_not_found"),
            ("GET", "/v1/models/a/b", 404, "model_not_found"),
        ],
    )
    def test_routes(self, house: House, method: str, path: str, status: int, code: str) -> None:
        async def main() -> None:
            async with house.client() as client:
                answer = await client.request(method, path)
                assert answer.status_code == status
                error = answer.json()["error"]
                assert (error["type"], error["code"]) == ("invalid_request_error", code)
                if status == 405:
                    assert answer.headers["allow"]

        run(main())

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"tools": []}, "tools"),
            ({"temperature": "0.7"}, "temperature"),
            ({"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0].name"),
            ({"n": 9}, "n"),
        ],
    )
    def test_the_field_is_named(self, house: House, fields: dict[str, Any], param: str) -> None:
        response = run(house.post(**fields))
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert param in response.json()["error"]["message"]

    @pytest.mark.parametrize(
        ("content", "code"),
        [(b"", "missing"), (b"null", "invalid_value"), (b"{", "invalid_json"), (b"[]", "invalid_value")],
    )
    def test_what_is_no_object(self, house: House, content: bytes, code: str) -> None:
        async def main() -> None:
            async with house.client() as client:
                headers = {"content-type": "application/json"}
                answer = await client.post("/v1/chat/completions", content=content, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)

        run(main())

    def test_a_bad_picture_among_good_ones(self, house: House) -> None:
        response = run(post(house, [image(), image("!!")]))
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "invalid_media", "messages[0].content[1]")

    def test_too_many_media(self, house: House) -> None:
        house.configure(max_media=1)
        response = run(post(house, [image(), image()]))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_media")

    def test_too_much_text(self, house: House) -> None:
        house.configure(max_text_characters=5)
        response = run(post(house, "123456"))
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")

    def test_not_ready(self, house: House) -> None:
        house.readiness.down = {"LanguageDecoder"}
        response = run(house.post())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert response.headers["retry-after"]


class TestOtherRoutes:
    async def get(self, house: House, path: str) -> httpx.Response:
        async with house.client() as client:
            return await client.get(path)

    def test_models(self, house: House) -> None:
        body = run(self.get(house, "/v1/models")).json()
        (model,) = body["data"]
        assert (body["object"], model["id"], model["object"]) == ("list", MODEL, "model")
        assert run(self.get(house, f"/v1/models/{MODEL}")).json() == model

    def test_health(self, house: House) -> None:
        response = run(self.get(house, "/health"))
        assert (response.status_code, response.json()["ready"]) == (200, True)
        assert sorted(response.json()["stages"]) == sorted(STAGES)

    def test_health_while_a_stage_is_down(self, house: House) -> None:
        house.readiness.down = {"AudioEncoder"}
        response = run(self.get(house, "/health"))
        assert (response.status_code, response.json()["ready"]) == (503, False)
        assert response.json()["stages"]["AudioEncoder"] == {"status": "UNHEALTHY", "running": 0, "ready": False}

    def test_health_while_the_controller_does_not_answer(self, house: House) -> None:
        def gone() -> Any:
            raise ray_errors.ActorUnavailableError("the controller restarts", None)

        house.readiness._ask = gone  # type: ignore[method-assign]

        async def main() -> int:
            async with house.client(raise_bugs=False) as client:
                return (await client.get("/health")).status_code

        assert run(main()) == 503

    def test_documentation(self, house: House) -> None:
        response = run(self.get(house, "/docs"))
        assert response.status_code == 200
        assert "/openapi.json" in response.text

    def test_description(self, house: House) -> None:
        schema = run(self.get(house, "/openapi.json")).json()
        responses = schema["paths"]["/v1/chat/completions"]["post"]["responses"]
        assert set(responses) == {"200", "400", "401", "404", "408", "413", "415", "429", "500", "503", "504"}
        for status, response in responses.items():
            if status != "200":
                ref = response["content"]["application/json"]["schema"]["$ref"]
                assert ref == "#/components/schemas/ErrorResponse"
        assert '"422"' not in json.dumps(schema)
        assert "ValidationError" not in json.dumps(schema)
        assert schema["components"]["schemas"]["ChatCompletionRequest"]["additionalProperties"] is False


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

    def test_one_line_a_request(self, house: House) -> None:
        with logged() as records:
            run(post(house, [image()]))
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
