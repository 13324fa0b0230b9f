"""What the door bounds while bodies arrive, and that it gives back what it counted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from deployments.door import Door
from deployments.settings import IngressSettings

from .fakes import House, chat, logged, pieces, run, until
from .test_door import chunks


def test_bodies_count_while_their_requests_are_under_way(house: House) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        house.stages.answers = deque([[gate, *pieces("x")], [*pieces("y")]])
        async with house.client() as client:
            request = client.build_request("POST", "/v1/chat/completions", json=chat())
            house.configure(max_bytes_in_flight=len(request.content) + 10)
            first = asyncio.ensure_future(house.post())
            await until(lambda: house.stages.open == 1)
            second = await house.post()
            assert (second.status_code, second.json()["error"]["code"]) == (429, "overloaded")
            assert int(second.headers["retry-after"]) > 0
            gate.set()
            assert (await first).status_code == 200
            for _ in range(3):  # neither those that were served nor those that were refused are still counted
                assert (await house.post()).status_code == 200

    run(main())
    assert house.idle()


def test_a_body_without_a_length_counts_as_it_arrives(house: House) -> None:
    house.configure(max_bytes_in_flight=1000)

    async def main() -> None:
        async with house.client() as client:
            answer = await client.post("/v1/chat/completions", content=chunks(400, 400, 400))
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert (await house.post()).status_code == 200

    run(main())


@pytest.mark.parametrize("arrived", [0, 1, 3])
def test_a_body_that_does_not_come_to_its_end(arrived: int) -> None:
    """Whether nothing has come, or something now and then: the limit is for the whole body."""
    messages: list[Any] = []
    left = arrived

    async def receive() -> Any:
        nonlocal left
        if left:
            left -= 1
            return {"type": "http.request", "body": b"{", "more_body": True}
        await asyncio.sleep(10)

    async def send(message: Any) -> None:
        messages.append(message)

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        raise AssertionError("the body never ends")

    async def main() -> None:
        settings = IngressSettings(body_seconds=0.05)
        scope = {"type": "http", "path": "/v1/chat/completions", "headers": [], "method": "POST"}
        await Door(reads, lambda: settings, lambda *_: None)(scope, receive, send)

    run(main(), seconds=5)
    assert messages[0]["status"] == 408
    assert b'"timeout"' in messages[1]["body"]


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("br", 415), ("identity", 200)])
def test_a_body_that_is_compressed(house: House, encoding: str, status: int) -> None:
    async def main() -> None:
        async with house.client() as client:
            headers = {"Content-Encoding": encoding}
            answer = await client.post("/v1/chat/completions", json=chat(), headers=headers)
            assert answer.status_code == status

    run(main())


def test_each_refused_completion_is_counted_and_told_once(house: House) -> None:
    with logged() as lines:
        for number in range(3):
            assert run(house.post(temperature=5)).status_code == 400
            assert house.metrics["requests"].total(status="400") == number + 1
        run(get_nowhere(house))
    told = [line.getMessage() for line in lines if line.getMessage().startswith("refused")]
    assert len(told) == 3
    assert all('"status": 400' in line for line in told)


async def get_nowhere(house: House) -> None:
    """What is no completion is in no book."""
    async with house.client() as client:
        assert (await client.get("/v1/nowhere")).status_code == 404
