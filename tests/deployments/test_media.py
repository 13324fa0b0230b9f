"""Bytes from the request, or from a server. No address outside this machine is ever connected to."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deployments.media import Fetcher, decode_base64, decode_data_url, is_public
from deployments.settings import FetchSettings
from pipeline.errors import InvalidMedia, MediaTooLarge

from .fakes import run


class TestBase64:
    def test_bytes(self) -> None:
        assert decode_base64("aGVsbG8=", 5) == b"hello"
        assert decode_base64("aGVs\r\nbG8=\n", 5) == b"hello"  # as MIME encoders break lines

    @pytest.mark.parametrize("text", ["a", "aGVsbG8", "aGVs-G8_", "日本", "%%%%", "=", "aGVsbG8==="])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidMedia, match="base64"):
            decode_base64(text, 100)

    def test_nothing(self) -> None:
        with pytest.raises(InvalidMedia, match="empty"):
            decode_base64("", 100)

    @pytest.mark.parametrize("size", [*range(1, 8), 1000])
    def test_limit_is_exact(self, size: int) -> None:
        text = base64.b64encode(b"x" * size).decode()
        assert len(decode_base64(text, size)) == size
        if size > 1:
            with pytest.raises(MediaTooLarge):
                decode_base64(text, size - 1)

    def test_what_is_far_too_large_is_not_decoded(self) -> None:
        with pytest.raises(MediaTooLarge):
            decode_base64("!" * 1000, 100)  # no base64 at all, which nobody noticed


class TestDataUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "data:image/png;base64,aGVsbG8=",
            "data:;base64,aGVsbG8=",
            "data:text/html;charset=utf-8;base64,aGVsbG8=",
            "data:,hello",
            "data:image/png,h%65llo",
        ],
    )
    def test_bytes(self, url: str) -> None:
        assert decode_data_url(url, 5) == b"hello"

    def test_percent_encoding_may_be_three_times_as_long(self) -> None:
        assert decode_data_url("data:," + "%00" * 5, 5) == bytes(5)

    @pytest.mark.parametrize("url", ["data:", "data:image/png;base64", "data:image/png;base64,", "data:,"])
    def test_what_is_none(self, url: str) -> None:
        with pytest.raises(InvalidMedia):
            decode_data_url(url, 100)

    @pytest.mark.parametrize("url", ["data:;base64,aGVsbG8=", "data:,hello", "data:," + "%00" * 5])
    def test_limit(self, url: str) -> None:
        with pytest.raises(MediaTooLarge):
            decode_data_url(url, 4)


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # metadata of most clouds
    "169.254.0.1",
    "100.64.0.1",
    "100.100.100.200",  # metadata of Alibaba's cloud
    "192.0.0.192",  # metadata of Oracle's cloud
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:db8::1",
    "100::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "localhost",
    "example.com",
    "2130706433",
    "",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


class Site:
    """A web server on this machine that counts who reaches it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
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
                await asyncio.sleep(5)
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


def fetcher(**settings: Any) -> Fetcher:
    return Fetcher(FetchSettings.model_validate({"enabled": True, "max_seconds": 5, **settings}))


def with_site(test: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with serving() as site:
            await test(site)

    run(main())


class TestFetch:
    """From a real server, private addresses allowed."""

    def test_off_by_default(self) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match="doesn't fetch"):
                await Fetcher(FetchSettings()).fetch(site.url())
            assert not site.requests

        with_site(main)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_bytes(self, host: str) -> None:
        async def main(site: Site) -> None:
            assert await fetcher(allow_private=True).fetch(site.url(host=host)) == b"picture"

        with_site(main)

    @pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 500, 503])
    def test_only_200_is_an_answer(self, status: int) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match=f"status {status}"):
                await fetcher(allow_private=True).fetch(site.url(f"/status/{status}"))

        with_site(main)

    @pytest.mark.parametrize("kind", ["size", "stream"])
    def test_size_limit(self, kind: str) -> None:
        async def main(site: Site) -> None:
            limited = fetcher(allow_private=True, max_bytes=1000)
            assert len(await limited.fetch(site.url(f"/{kind}/1000"))) == 1000
            with pytest.raises(MediaTooLarge, match="1,000 bytes"):
                await limited.fetch(site.url(f"/{kind}/1100"))

        with_site(main)

    def test_an_endless_body_is_left_when_the_limit_is_reached(self) -> None:
        async def main(site: Site) -> None:
            limited = fetcher(allow_private=True, max_bytes=250)
            async with asyncio.timeout(2):  # the whole of it takes minutes
                with pytest.raises(MediaTooLarge):
                    await limited.fetch(site.url("/drip/1000000"))

        with_site(main)

    @pytest.mark.parametrize("path", ["/hang", "/drip/100000"])
    def test_slow(self, path: str) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match=r"no answer within 0\.2 s"):
                await fetcher(allow_private=True, max_seconds=0.2).fetch(site.url(path))

        with_site(main)

    def test_compression_is_not_undone(self) -> None:
        # Else a small answer could unfold into gigabytes.
        async def main(site: Site) -> None:
            assert await fetcher(allow_private=True).fetch(site.url("/zipped")) == b"not gzip at all"

        with_site(main)

    def test_nobody_there(self) -> None:
        async def main() -> None:
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))  # bound, not listening
                url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
                with pytest.raises(InvalidMedia, match="can't be fetched"):
                    await fetcher(allow_private=True).fetch(url)

        run(main())

    def test_cancelling_hangs_up(self) -> None:
        async def main(site: Site) -> None:
            task = asyncio.ensure_future(fetcher(allow_private=True).fetch(site.url("/hang")))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with_site(main)

    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd",
            "ftp://127.0.0.1/a.png",
            "gopher://127.0.0.1/",
            "javascript:alert(1)",
            "/etc/passwd",
            "a.png",
            "",
            "http://",
            "http:///a.png",
            "http://[::1",
            "http://host:99999/",
            "HTTPS",
        ],
    )
    def test_what_is_no_http_url(self, url: str) -> None:
        with pytest.raises(InvalidMedia):
            run(fetcher(allow_private=True).fetch(url))

    @pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "-", "ex ample", "xn--a"])
    @pytest.mark.parametrize("allow_private", [True, False])
    def test_impossible_names(self, host: str, allow_private: bool) -> None:
        async def main() -> None:
            asyncio.get_running_loop().getaddrinfo = _offline  # type: ignore[method-assign]
            with pytest.raises(InvalidMedia):
                await fetcher(allow_private=allow_private).fetch(f"http://{host}/")

        run(main())


async def _offline(host: str, *args: Any, **options: Any) -> Any:
    host.encode("idna")  # as the real one does, and raises UnicodeError
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class TestRedirects:
    @pytest.mark.parametrize("hops", [1, 2, 3])
    def test_up_to_the_limit(self, hops: int) -> None:
        async def main(site: Site) -> None:
            assert await fetcher(allow_private=True, max_redirects=3).fetch(site.url(f"/hops/{hops}")) == b"picture"
            assert len(site.requests) == hops + 1

        with_site(main)

    def test_past_the_limit(self) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match="redirects more than 3 times"):
                await fetcher(allow_private=True, max_redirects=3).fetch(site.url("/hops/4"))
            assert "/picture" not in site.requests

        with_site(main)

    def test_none_allowed(self) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match="redirects"):
                await fetcher(allow_private=True, max_redirects=0).fetch(site.url("/hops/1"))
            assert await fetcher(allow_private=True, max_redirects=0).fetch(site.url()) == b"picture"

        with_site(main)

    def test_in_a_circle(self) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match="redirects"):
                await fetcher(allow_private=True).fetch(site.url("/loop"))
            assert site.requests == ["/loop"] * 4

        with_site(main)

    def test_to_nowhere(self) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match="status 302"):
                await fetcher(allow_private=True).fetch(site.url("/nowhere"))

        with_site(main)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_every_kind(self, status: int) -> None:
        async def main(site: Site) -> None:
            url = site.url(f"/to?status={status}&url=/picture")
            assert await fetcher(allow_private=True).fetch(url) == b"picture"

        with_site(main)

    @pytest.mark.parametrize(
        "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://", "http://[::1", "http://h:99999/"]
    )
    def test_to_another_scheme(self, target: str) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia):
                await fetcher(allow_private=True).fetch(site.url(f"/to?status=302&url={target}"))

        with_site(main)


# Each of them is this machine to the system's resolver or to the socket; none is to be connected to.
DISGUISES = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
    "[::1%25lo]",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "user:password@127.0.0.1",
    "%31%32%37.0.0.1",
]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[Any]]]:
    """A port on this machine, and who connected to it, by any protocol."""
    connections: list[Any] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    servers = [server]
    if socket.has_ipv6:
        with suppress(OSError):  # a machine may know IPv6 and have no such address
            servers.append(await asyncio.start_server(connected, "::1", port))
    try:
        yield port, connections
    finally:
        for each in servers:
            each.close()
            await each.wait_closed()


@pytest.mark.parametrize("host", DISGUISES)
def test_this_machine_in_disguise(host: str) -> None:
    async def main() -> None:
        async with listening() as (port, connections):
            with pytest.raises(InvalidMedia):
                await fetcher(max_seconds=2).fetch(f"http://{host}:{port}/")
            await asyncio.sleep(0)
            assert not connections

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
        loop.getaddrinfo, loop.sock_connect = self.getaddrinfo, self.sock_connect

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
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


PUBLIC_ADDRESS = "93.184.216.34"


def with_internet(test: Callable[[Site, Internet], Coroutine[Any, Any, None]]) -> None:
    async def main(site: Site) -> None:
        internet = Internet(site)
        internet.answers["pictures.example"] = [[PUBLIC_ADDRESS]]
        await test(site, internet)

    with_site(main)


class TestPublicOnly:
    """The default: names resolve to public addresses or not at all."""

    def test_a_public_name(self) -> None:
        async def main(site: Site, internet: Internet) -> None:
            assert await fetcher().fetch("http://pictures.example/picture") == b"picture"
            assert internet.connected == [PUBLIC_ADDRESS]

        with_internet(main)

    def test_a_public_address(self) -> None:
        async def main(site: Site, internet: Internet) -> None:
            assert await fetcher().fetch(f"http://{PUBLIC_ADDRESS}/picture") == b"picture"
            assert not internet.resolved

        with_internet(main)

    @pytest.mark.parametrize(
        "addresses",
        [["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["::1"], ["fe80::1%eth0"], [PUBLIC_ADDRESS, "10.0.0.1"]],
    )
    def test_a_name_with_a_private_address(self, addresses: list[str]) -> None:
        async def main(site: Site, internet: Internet) -> None:
            internet.answers["evil.example"] = [addresses]
            with pytest.raises(InvalidMedia, match="not a public address"):
                await fetcher().fetch("http://evil.example/picture")
            assert not internet.connected

        with_internet(main)

    def test_an_unknown_name(self) -> None:
        async def main(site: Site, internet: Internet) -> None:
            internet.answers["nowhere.example"] = [[]]
            with pytest.raises(InvalidMedia, match="can't be fetched"):
                await fetcher().fetch("http://nowhere.example/picture")

        with_internet(main)

    def test_the_address_that_was_checked_is_the_one_connected_to(self) -> None:
        async def main(site: Site, internet: Internet) -> None:
            internet.answers["rebind.example"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
            assert await fetcher().fetch("http://rebind.example/picture") == b"picture"
            assert internet.resolved == ["rebind.example"]
            assert internet.connected == [PUBLIC_ADDRESS]
            with pytest.raises(InvalidMedia, match="not a public address"):
                await fetcher().fetch("http://rebind.example/picture")
            assert internet.connected == [PUBLIC_ADDRESS]

        with_internet(main)

    def test_each_redirect_is_resolved_and_checked_anew(self) -> None:
        async def main(site: Site, internet: Internet) -> None:
            internet.answers["rebind.example"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
            with pytest.raises(InvalidMedia, match="not a public address"):
                await fetcher().fetch("http://rebind.example/hops/1")
            assert internet.connected == [PUBLIC_ADDRESS]
            assert site.requests == ["/hops/1"]

        with_internet(main)

    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.1/picture",
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:127.0.0.1]/picture",
            "//127.0.0.1/picture",
            "http://evil.example/picture",
            "http://2130706433/picture",
            "http://127.1/picture",
            "file:///etc/passwd",
        ],
    )
    def test_a_redirect_inwards(self, target: str) -> None:
        async def main(site: Site, internet: Internet) -> None:
            internet.answers |= {
                "evil.example": [["10.0.0.1"]],
                "2130706433": [["127.0.0.1"]],
                "127.1": [["127.0.0.1"]],
            }
            with pytest.raises(InvalidMedia):
                await fetcher().fetch(f"http://pictures.example/to?status=302&url={target}")
            assert internet.connected == [PUBLIC_ADDRESS]
            assert len(site.requests) == 1

        with_internet(main)

    def test_a_redirect_to_another_public_name(self) -> None:
        async def main(site: Site, internet: Internet) -> None:
            internet.answers["cdn.example"] = [[PUBLIC_ADDRESS]]
            url = "http://pictures.example/to?status=302&url=http://cdn.example/picture"
            assert await fetcher().fetch(url) == b"picture"
            assert internet.resolved == ["pictures.example", "cdn.example"]

        with_internet(main)
