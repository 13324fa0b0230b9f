"""A medium is encoded once, kept within the bound, and dropped when it is lost."""

from __future__ import annotations

import asyncio
import contextvars
import random

import pytest

from deployments.media_cache import EncodedMedia, MediaCache
from pipeline.errors import InvalidMedia

from .cached import Encoder
from .fakes import encoded, run, until


def test_a_medium_that_comes_back_is_encoded_once() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder()
        first, outcome = await cache.get("a", encode)
        assert outcome == "miss"
        again, outcome = await cache.get("a", encode)
        assert outcome == "hit"
        assert again is first
        assert (encode.started, len(cache), cache.bytes, cache.encoding) == (1, 1, 100, 0)

    run(main())


def test_simultaneous_requests_share_one_encoding() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder(open_=False)
        waiters = [asyncio.ensure_future(cache.get("a", encode)) for _ in range(5)]
        await until(lambda: encode.started)
        assert (cache.encoding, cache.waiting) == (1, 5)
        encode.gate.set()
        results = await asyncio.gather(*waiters)
        assert [outcome for _, outcome in results] == ["miss"] + ["shared"] * 4
        assert len({id(item) for item, _ in results}) == 1
        assert (encode.started, cache.bytes, cache.waiting) == (1, 100, 0)

    run(main())


def test_keys_are_apart() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder()
        a, b = await asyncio.gather(cache.get("a", encode), cache.get("b", encode))
        assert a[0].ref != b[0].ref
        assert cache.bytes == 200

    run(main())


def test_least_recently_used_goes_first() -> None:
    async def main() -> None:
        cache, encode = MediaCache(250), Encoder()
        await cache.get("a", encode)
        await cache.get("b", encode)
        await cache.get("a", encode)
        await cache.get("c", encode)
        assert cache.bytes == 200
        assert (await cache.get("a", encode))[1] == "hit"
        assert (await cache.get("c", encode))[1] == "hit"
        assert (await cache.get("b", encode))[1] == "miss"

    run(main())


def test_what_is_larger_than_the_bound_is_used_but_not_kept() -> None:
    async def main() -> None:
        cache = MediaCache(250)
        item, outcome = await cache.get("huge", Encoder(nbytes=251))
        assert (item.stats.nbytes, outcome) == (251, "miss")
        assert (len(cache), cache.bytes) == (0, 0)

    run(main())


def test_what_is_larger_than_the_bound_drives_nobody_out() -> None:
    async def main() -> None:
        cache = MediaCache(250)
        await cache.get("a", Encoder())
        await cache.get("huge", Encoder(nbytes=251))
        assert (await cache.get("a", Encoder()))[1] == "hit"

    run(main())


def test_a_bound_of_nothing_keeps_nothing() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1), Encoder()
        for _ in range(3):
            assert (await cache.get("a", encode))[1] == "miss"
        assert (encode.started, cache.bytes) == (3, 0)

    run(main())


def test_forget_drops_the_lost_reference_only() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder()
        lost, _ = await cache.get("a", encode)
        await cache.get("b", encode)
        cache.forget("a", lost.ref)
        assert (len(cache), cache.bytes) == (1, 100)
        fresh, outcome = await cache.get("a", encode)
        assert outcome == "miss"
        cache.forget("a", lost.ref)  # another request noticed the same loss, later
        cache.forget("never", lost.ref)
        assert (await cache.get("a", encode)) == (fresh, "hit")
        assert cache.bytes == 200

    run(main())


def test_resize() -> None:
    async def main() -> None:
        cache, encode = MediaCache(1000), Encoder()
        for key in "abcd":
            await cache.get(key, encode)
        cache.resize(250)
        assert (len(cache), cache.bytes) == (2, 200)
        assert (await cache.get("d", encode))[1] == "hit"
        cache.resize(1000)
        for key in "ab":
            await cache.get(key, encode)
        assert cache.bytes == 400

    run(main())


def test_an_encoding_belongs_to_no_request() -> None:
    # Serve finds what a request started through context variables, and cancels it with the request.
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody")

    async def main() -> None:
        seen = []

        async def encode() -> EncodedMedia:
            seen.append(request.get())
            return encoded()

        request.set("the first client")
        await MediaCache(1000).get("a", encode)
        assert seen == ["nobody"]

    run(main())


@pytest.mark.parametrize("seed", range(5))
def test_many_at_once(seed: int) -> None:
    """Random arrivals, errors and departures leave nothing pending and the books balanced."""
    rng = random.Random(seed)

    async def main() -> None:
        cache = MediaCache(700)
        running: dict[str, int] = {}

        async def visit(key: str) -> None:
            async def encode() -> EncodedMedia:
                running[key] = running.get(key, 0) + 1
                assert running[key] == 1, "one medium was encoded twice at once"
                try:
                    await asyncio.sleep(rng.random() * 0.004)
                    if rng.random() < 0.2:
                        raise InvalidMedia("broken")
                    return encoded(key, 100)
                finally:
                    running[key] -= 1

            await asyncio.sleep(rng.random() * 0.02)
            item, _ = await cache.get(key, encode)
            assert item.ref == key
            if rng.random() < 0.1:
                cache.forget(key, item.ref)

        tasks = [asyncio.ensure_future(visit(rng.choice("abcdefghijkl"))) for _ in range(300)]
        for task in tasks:
            if rng.random() < 0.3:
                asyncio.get_running_loop().call_later(rng.random() * 0.03, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(r) for r in results} <= {type(None), InvalidMedia, asyncio.CancelledError}
        await until(lambda: not any(running.values()))
        await asyncio.sleep(0.01)
        assert cache.encoding == 0
        assert cache.bytes == 100 * len(cache) <= 700

    run(main())
