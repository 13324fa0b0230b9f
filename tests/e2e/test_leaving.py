"""A client that leaves, at any moment, frees the work at every stage within a second."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from .cluster import STAGES, Cluster, wait_for
from .media import audio, image, noise_png, tone_wav

SECOND = 1.0
LONG = {"max_tokens": 3000, "ignore_eos": True, "temperature": 0}


async def _leave_when(cluster: Cluster, body: dict[str, Any], busy: Any) -> None:
    """Posts, waits until `busy()` is true, and hangs up."""
    async with httpx.AsyncClient(timeout=60) as client:
        task = asyncio.create_task(client.post(f"{cluster.url}/v1/chat/completions", json=body))
        try:
            while not await asyncio.to_thread(busy):
                assert not task.done(), task.result().text
                await asyncio.sleep(0.01)
        finally:
            task.cancel()


def _request(cluster: Cluster, stream: bool, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(content) or "hi"}]
    return {"model": cluster.model, "messages": messages, "stream": stream, **LONG, **fields}


def _assert_freed(cluster: Cluster) -> None:
    begin = time.monotonic()
    wait_for(cluster.idle, 10, "idle stages")
    took = time.monotonic() - begin
    assert took < SECOND, {stage: cluster.stats(stage) for stage in STAGES}


@pytest.mark.parametrize("stream", [False, True])
def test_while_decoding(cluster: Cluster, stream: bool) -> None:
    before = cluster.stats("LanguageDecoder")
    asyncio.run(
        _leave_when(cluster, _request(cluster, stream), lambda: cluster.stats("LanguageDecoder")["blocks_used"] > 5)
    )
    _assert_freed(cluster)
    assert cluster.stats("LanguageDecoder")["cancelled"] == before["cancelled"] + 1


def test_while_prefilling(cluster: Cluster) -> None:
    body = _request(cluster, True, {"type": "text", "text": "word " * 1900}, max_tokens=50)
    asyncio.run(_leave_when(cluster, body, lambda: cluster.stats("LanguageDecoder")["running"] == 1))
    _assert_freed(cluster)


@pytest.mark.parametrize("stream", [False, True])
def test_while_encoding_pictures(cluster: Cluster, stream: bool) -> None:
    parts = [image(noise_png(time.time_ns() + i, 1300, 1300), "png") for i in range(4)]
    before = cluster.stats("VisionEncoder")
    asyncio.run(
        _leave_when(cluster, _request(cluster, stream, *parts), lambda: cluster.stats("VisionEncoder")["active"] > 0)
    )
    _assert_freed(cluster)
    after = cluster.stats("VisionEncoder")
    assert after["cancelled"] > before["cancelled"]
    assert after["started"] == after["finished"] + after["failed"] + after["cancelled"]


def test_while_encoding_sound(cluster: Cluster) -> None:
    parts = [audio(tone_wav(300 + time.time_ns() % 1000 + i, 120), "wav") for i in range(3)]
    before = cluster.stats("AudioEncoder")
    asyncio.run(
        _leave_when(cluster, _request(cluster, False, *parts), lambda: cluster.stats("AudioEncoder")["active"] > 0)
    )
    _assert_freed(cluster)
    assert cluster.stats("AudioEncoder")["cancelled"] > before["cancelled"]


def test_while_queued(cluster: Cluster) -> None:
    """Behind a full batch: 16 run, the others wait, and all of them leave."""

    async def crowd() -> None:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=40)) as client:
            url = f"{cluster.url}/v1/chat/completions"
            tasks = [asyncio.create_task(client.post(url, json=_request(cluster, i % 2 == 0))) for i in range(24)]
            while (await asyncio.to_thread(cluster.stats, "LanguageDecoder"))["waiting"] < 4:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()

    asyncio.run(crowd())
    _assert_freed(cluster)


def test_one_of_two_who_share_encodings(cluster: Cluster) -> None:
    """The other still gets its answer, from the same encodings."""
    parts = [image(noise_png(time.time_ns() + i, 1300, 1300), "png") for i in range(4)]
    before = cluster.stats("VisionEncoder")

    async def two() -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"{cluster.url}/v1/chat/completions"
            body = _request(cluster, False, *parts, max_tokens=3)
            leaver, stayer = (asyncio.create_task(client.post(url, json=body)) for _ in range(2))
            # Until both wait for every encoding that is under way: what the leaver began alone goes with it.
            while True:
                ingress = await asyncio.to_thread(cluster.stats, "Ingress")
                if ingress["encoding"] and ingress["waiting"] == 2 * ingress["encoding"]:
                    break
                assert not leaver.done(), "the encodings were over before both requests waited for them"
                await asyncio.sleep(0.005)
            leaver.cancel()
            return await stayer

    assert asyncio.run(two()).status_code == 200
    assert cluster.stats("VisionEncoder")["started"] == before["started"] + len(parts)
