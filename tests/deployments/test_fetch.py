"""Bytes from a server, and through its redirects. No address outside this machine is ever connected to."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any
from unittest import mock

import pytest

from deployments import media
from deployments.media import Fetcher
from deployments.settings import FetchSettings
from pipeline.errors import InvalidMedia, MediaTooLarge, Overloaded

from .fakes import run, until
from .sites import Once, Site, fetcher, with_site


class TestFetch:
    """From a real server, private addresses allowed."""

    def test_off_by_default(self) -> None:
        async def main(site: Site) -> None:
            with pytest.raises(InvalidMedia, match="doesn't fetch"):
                await Once(FetchSettings()).fetch(site.url())
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
            async with asyncio.timeout(4):
                while not site.requests:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while not site.left:
                    await asyncio.sleep(0.01)
            assert site.left == ["/hang"]

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
            "http://a%3Ab@127.0.0.1/x.png",
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
            with mock.patch.object(media, "look_up", _offline), pytest.raises(InvalidMedia):
                await fetcher(allow_private=allow_private).fetch(f"http://{host}/")

        run(main())


def test_names_that_nobody_answers_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are threads that decode; those who left are not looked up."""
    asked: list[str] = []
    gate = threading.Event()

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        if host.startswith("slow"):
            gate.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> None:
        slow = [asyncio.ensure_future(fetcher().fetch(f"http://slow{i}.example/")) for i in range(20)]
        await asyncio.sleep(0.05)
        with pytest.raises(InvalidMedia):
            await asyncio.wait_for(fetcher().fetch("http://quick.example/"), 2)
        more = [asyncio.ensure_future(fetcher().fetch(f"http://slow{i}.example/")) for i in range(20, 60)]
        await until(lambda: len(asked) == 1 + 32)
        await asyncio.sleep(0.05)
        for task in (*slow, *more):
            task.cancel()
        await asyncio.gather(*slow, *more, return_exceptions=True)
        gate.set()

    run(main())
    assert len(asked) == 1 + 32


def test_what_all_requests_fetch_is_bounded() -> None:
    async def main(site: Site) -> None:
        shared = Fetcher(FetchSettings(enabled=True, allow_private=True, max_bytes=1000, max_bytes_in_flight=2500))
        with shared.account() as first:
            for _ in range(2):
                await shared.fetch(site.url("/size/1000"), first)
            with pytest.raises(Overloaded), shared.account() as second:
                await shared.fetch(site.url("/size/1000"), second)
            assert shared.held == 2000
            with shared.account() as second:
                assert len(await shared.fetch(site.url("/size/500"), second)) == 500
        assert shared.held == 0

    with_site(main)


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
