from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments.api_errors import ApiError
from deployments.door import Door, check_key
from deployments.settings import IngressSettings

from .fakes import House, chat, run


@pytest.mark.parametrize(
    "authorization",
    ["Bearer one", "bearer one", "BEARER one", "Bearer  one ", "Bearer two"],
)
def test_a_key_that_fits(authorization: str) -> None:
    check_key(authorization, ("one", "two"))


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer three", "Bearer on", "Bearer onee", "Basic one", "one", "Bearer one two", "é"],
)
def test_a_key_that_does_not(authorization: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_key(authorization, ("one", "two"))
    assert caught.value.status_code == 401
    assert "one" not in caught.value.body.error.message.split()


def test_without_keys_everybody_may_enter() -> None:
    for authorization in ("", "Bearer anything", "Basic x"):
        check_key(authorization, ())


async def knock(length: str | None, **limits: int) -> int:
    """The status that a request with this Content-Length, and no body, meets at the door."""
    statuses: list[int] = []
    settings = IngressSettings(**limits)

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [] if length is None else [(b"content-length", length.encode("latin-1"))]
    scope = {"type": "http", "path": "/docs", "headers": headers, "method": "GET"}
    await Door(inside, lambda: settings, lambda *_: None)(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize("length", [None, "0", "10", "", "-5", "ten", "²", "1_0"])
def test_lengths_that_pass(length: str | None) -> None:
    # What is no number is the server's business; the bytes are counted anyway.
    assert run(knock(length, max_body_bytes=10)) == 200


@pytest.mark.parametrize("length", ["11", "999999999999999999999", "0" * 30 + "11"])
def test_lengths_that_do_not(length: str) -> None:
    assert run(knock(length, max_body_bytes=10)) == 413


def test_more_than_may_be_in_flight_comes_back_later() -> None:
    assert run(knock("11", max_bytes_in_flight=10)) == 429


@pytest.fixture
def locked(house: House) -> House:
    house.configure(api_keys=["sk-one", "sk-two"])
    return house


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("wrong", 401), ("sk-on", 401), ("", 401), ("sk-one", 200), ("sk-two", 200)]
)
def test_v1_is_locked(locked: House, key: str | None, status: int) -> None:
    async def main() -> None:
        async with locked.client() as client:
            for answer in (
                await client.get("/v1/models", headers=bearer(key)),
                await client.post("/v1/chat/completions", json=chat(), headers=bearer(key)),
            ):
                assert answer.status_code == status
                if status == 401:
                    error = answer.json()["error"]
                    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
                    assert answer.headers["www-authenticate"] == "Bearer"

    run(main())


def test_a_stranger_learns_nothing_about_what_is_inside(locked: House) -> None:
    async def main() -> None:
        async with locked.client() as client:
            assert (await client.get("/v1/nowhere")).status_code == 401
            assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 401

    run(main())
    assert not locked.stages.requests


def test_health_and_documentation_are_open(locked: House) -> None:
    async def main() -> None:
        async with locked.client() as client:
            for path in ("/health", "/docs", "/openapi.json"):
                assert (await client.get(path)).status_code == 200

    run(main())


def test_keys_hold_under_a_route_prefix(locked: House) -> None:
    # `route_prefix: /megrez` reaches the application as a root_path, and the path begins with it.
    async def main() -> None:
        async with locked.client(root_path="/megrez") as client:
            assert (await client.get("/megrez/v1/models", headers=bearer("sk-one"))).status_code == 200
            assert (await client.get("/megrez/v1/models")).status_code == 401
            assert (await client.get("/megrez/health")).status_code == 200

    run(main())


def test_new_keys_count_at_once(locked: House) -> None:
    async def main() -> None:
        async with locked.client() as client:
            locked.configure(api_keys=["sk-new"])
            assert (await client.get("/v1/models", headers=bearer("sk-one"))).status_code == 401
            assert (await client.get("/v1/models", headers=bearer("sk-new"))).status_code == 200

    run(main())


async def chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b" " * size


@pytest.mark.parametrize("content", [b" " * 1001, (1000, 1), (500, 400, 101), (5000,)], ids=str)
def test_body_over_its_limit(house: House, content: Any) -> None:
    house.configure(max_body_bytes=1000)

    async def main() -> None:
        async with house.client() as client:
            body = content if isinstance(content, bytes) else chunks(*content)  # without Content-Length
            answer = await client.post("/v1/chat/completions", content=body)
            assert answer.status_code == 413
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "body_too_large")
            assert "1,000" in error["message"]

    run(main())
    assert house.idle()


def test_a_claim_that_is_too_small_does_not_help(house: House) -> None:
    house.configure(max_body_bytes=1000)

    async def main() -> None:
        async with house.client() as client:
            headers = {"Content-Length": "10"}
            answer = await client.post("/v1/chat/completions", content=chunks(600, 600), headers=headers)
            assert answer.status_code == 413

    run(main())


def test_body_at_its_limit(house: House) -> None:
    async def main() -> None:
        async with house.client() as client:
            request = client.build_request("POST", "/v1/chat/completions", json=chat())
            house.configure(max_body_bytes=len(request.content))
            assert (await client.send(request)).status_code == 200

    run(main())
