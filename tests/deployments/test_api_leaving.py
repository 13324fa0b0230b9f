"""A client that hangs up, at any moment, leaves nothing behind; one that is refused takes no place."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from .clients import RawClient
from .fakes import FIRST, House, Step, chat, image, pieces, run, until


class TestLeaving:
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
            assert house.metrics["requests"].seen == [(1.0, {"status": "499"})]
            assert house.stages.left == 1

        run(main())

    @pytest.mark.parametrize("number", [0, 1, 2, 3])
    def test_the_connection_breaks(self, house: House, number: int) -> None:
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
            assert house.metrics["requests"].seen == [(1.0, {"status": "499"})]
            assert house.stages.left == 1

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
