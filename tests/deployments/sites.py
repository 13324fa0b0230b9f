"""Web servers on this machine to fetch from, and an internet that ends at them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

from aiohttp import web
from aiohttp.test_utils import TestServer

from deployments import media
from deployments.media import Fetcher
from deployments.settings import FetchSettings

from .fakes import run

PUBLIC_ADDRESS = "93.184.216.34"


class Site:
    """A web server on this machine that counts who reaches it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.left: list[str] = []  # by who asked, before there was an answer
        self.port = 0

    def url(self, path: str = "/picture", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        match request.path.strip("/").split("/"):
            case ["picture"]:
                return web.Response(body=b"picture")
            case ["empty"]:
                return web.Response(body=b"")
            case ["status", code]:
                return web.Response(status=int(code))
            case ["size", size]:
                return web.Response(body=b"x" * int(size))
            case ["stream", size]:
                return await self._stream(request, int(size), 0)
            case ["drip", size]:
                return await self._stream(request, int(size), 0.05)
            case ["hang"]:
                try:
                    await asyncio.sleep(5)
                except asyncio.CancelledError:
                    self.left.append(request.path)
                    raise
            case ["hops", number]:
                raise web.HTTPFound(f"/hops/{int(number) - 1}" if int(number) > 1 else "/picture")
            case ["loop"]:
                raise web.HTTPFound("/loop")
            case ["nowhere"]:
                return web.Response(status=302)
            case ["to"]:
                return web.Response(status=int(request.query["status"]), headers={"Location": request.query["url"]})
            case ["zipped"]:
                return web.Response(body=b"not gzip at all", headers={"Content-Encoding": "gzip"})
        raise web.HTTPNotFound

    async def _stream(self, request: web.Request, size: int, pause: float) -> web.StreamResponse:
        response = web.StreamResponse()  # chunked: no Content-Length
        await response.prepare(request)
        for _ in range(size // 100):
            await response.write(b"x" * 100)
            await asyncio.sleep(pause)
        return response


@asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.handle)
    server = TestServer(app, host="127.0.0.1", handler_cancellation=True)
    await server.start_server(shutdown_timeout=0.1)
    assert server.port
    site.port = server.port
    try:
        yield site
    finally:
        await server.close()


class Once(Fetcher):
    """Each fetch is a request of its own."""

    async def fetch(self, url: str) -> bytes:  # type: ignore[override]
        with self.account() as account:
            return await super().fetch(url, account)


def fetcher(**settings: Any) -> Once:
    return Once(FetchSettings.model_validate({"enabled": True, "max_seconds": 5, **settings}))


def with_site(test: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with serving() as site:
            await test(site)

    run(main())


class Internet:
    """Names, addresses and what is behind them, as this loop sees them."""

    def __init__(self, site: Site) -> None:
        self.answers: dict[str, list[list[str]]] = {}  # a name's answers, one list a question
        self.resolved: list[str] = []
        self.connected: list[str] = []
        self._port = site.port
        loop: Any = asyncio.get_running_loop()
        self._connect = loop.sock_connect
        loop.sock_connect = self.sock_connect

    async def look_up(self, host: str, port: int) -> list[Any]:
        self.resolved.append(host)
        answers = self.answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port) if family == socket.AF_INET else (address, port, 0, 0))
            for family, address in zip(families, addresses, strict=True)
        ]

    async def sock_connect(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        self.connected.append(address[0])
        if address[0] != PUBLIC_ADDRESS:
            raise ConnectionRefusedError
        await self._connect(sock, ("127.0.0.1", self._port))


def with_internet(test: Callable[[Site, Internet], Coroutine[Any, Any, None]]) -> None:
    async def main(site: Site) -> None:
        internet = Internet(site)
        internet.answers["pictures.example"] = [[PUBLIC_ADDRESS]]
        with mock.patch.object(media, "look_up", internet.look_up):
            await test(site, internet)

    with_site(main)
