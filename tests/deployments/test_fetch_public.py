"""By default, only what is public is fetched. No address outside this machine is ever connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pipeline.errors import InvalidMedia

from .fakes import run
from .sites import PUBLIC_ADDRESS, Internet, Site, fetcher, with_internet

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
