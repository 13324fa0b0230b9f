"""What a client sees when things go wrong."""

from __future__ import annotations

from collections import deque
from typing import Any

import openai
import pytest
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors

from pipeline.errors import ContextOverflow, GenerationFailed, InvalidMedia, MediaTooLarge, Overloaded

from .clients import RawClient, official
from .fakes import FIRST, MODEL, House, chat, events, image, pieces, run, task_error

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
        house.configure(request_seconds=1.0)
        if where == "encoding":
            house.stages.encodings = deque([[5.0]])
        else:
            house.stages.answers = deque([[5.0]])
        response = run(house.post(content=[image()], stream=stream))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        assert house.stages.encode_cancelled == (where == "encoding")
        assert house.stages.left == (where == "before")
        assert house.idle()

    def test_after_the_first_token(self, house: House) -> None:
        house.configure(request_seconds=1.0)
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
        house.configure(request_seconds=1.0)
        house.stages.answers = deque([[*pieces("a", "b", "c")[:2], 5.0]])

        async def main() -> None:
            client = RawClient(house.api, chat(stream=True), spec_version="2.4")
            client.stall[stalled] = 1.5
            await client.start()
            assert events(client.text)[-1]["error"]["code"] == "timeout"
            assert not client.sent[-1]["more_body"]
            assert house.idle()

        run(main())
