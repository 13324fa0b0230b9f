"""Requests that leave while a medium is encoded for them, and encodings that fail."""

from __future__ import annotations

import asyncio

import pytest

from deployments.media_cache import EncodedMedia, MediaCache
from pipeline.errors import InvalidMedia

from .cached import Encoder
from .fakes import encoded, run, until


def test_an_error_is_everybodys_and_is_not_kept() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder(error=InvalidMedia("no picture"), open_=False)
        waiters = [asyncio.ensure_future(cache.get("a", encode)) for _ in range(3)]
        await until(lambda: encode.started)
        encode.gate.set()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(result) for result in results] == [InvalidMedia] * 3
        assert (encode.started, len(cache), cache.bytes, cache.encoding) == (1, 0, 0, 0)
        encode.error = None
        assert (await cache.get("a", encode))[1] == "miss"

    run(main())


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_a_waiter_that_leaves_disturbs_nobody(leaver: int) -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder(open_=False)
        waiters = [asyncio.ensure_future(cache.get("a", encode)) for _ in range(3)]
        await until(lambda: encode.started)
        waiters.pop(leaver).cancel()
        await asyncio.sleep(0.01)
        encode.gate.set()
        results = await asyncio.gather(*waiters)
        assert {item.ref for item, _ in results} == {1}
        assert (encode.started, encode.cancelled) == (1, 0)

    run(main())


def test_the_last_waiter_that_leaves_cancels_the_encoding() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder(open_=False)
        waiters = [asyncio.ensure_future(cache.get("a", encode)) for _ in range(3)]
        await until(lambda: encode.started)
        for waiter in waiters:
            assert encode.cancelled == 0
            waiter.cancel()
            await asyncio.sleep(0.01)
        assert encode.cancelled == 1
        assert (len(cache), cache.bytes, cache.encoding) == (0, 0, 0)

    run(main())


def test_who_comes_after_the_last_has_left_starts_anew() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder(open_=False)
        waiter = asyncio.ensure_future(cache.get("a", encode))
        await until(lambda: encode.started)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        late = asyncio.ensure_future(cache.get("a", encode))  # the cancelled encoding still winds up
        encode.gate.set()
        item, outcome = await late
        assert (item.ref, outcome) == (2, "miss")
        assert (len(cache), cache.bytes, cache.encoding) == (1, 100, 0)

    run(main())


def test_an_error_after_everybody_left_is_silent() -> None:
    async def main() -> None:
        cache = MediaCache(1000)

        async def stubborn() -> EncodedMedia:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise InvalidMedia("too late") from None
            raise AssertionError

        waiter = asyncio.ensure_future(cache.get("a", stubborn))
        await until(lambda: cache.encoding)
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert cache.encoding == 0

    run(main())


def test_an_encoding_that_ignores_its_cancellation_is_counted_once() -> None:
    async def main() -> None:
        cache, gate = MediaCache(1000), asyncio.Event()

        async def stubborn() -> EncodedMedia:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                await gate.wait()
            return encoded()

        waiter = asyncio.ensure_future(cache.get("a", stubborn))
        await until(lambda: cache.encoding)
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        late = asyncio.ensure_future(cache.get("a", stubborn))
        await asyncio.sleep(0)
        gate.set()
        await late
        await asyncio.sleep(0.01)
        assert (len(cache), cache.bytes) == (1, 100)

    run(main())
