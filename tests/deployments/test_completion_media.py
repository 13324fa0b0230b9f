"""A completion's media: what is encoded, how often, and who hears of a bad one."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from typing import Any

import pytest

from deployments.completion import MediaPart
from pipeline.config import ModelConfig
from pipeline.errors import InvalidMedia, InvalidRequest, MediaTooLarge, Overloaded

from .completing import outcome, text
from .fakes import House, audio, image, run, task_error, until
from .sites import Site, with_site


def test_the_decoder_gets_references_in_order(house: House) -> None:
    _, trace = run(outcome(house, [image("AA=="), audio("AQ=="), image("Ag==")]))
    assert dict(house.stages.encoded) == {"image": b"\x02", "audio": b"\x01"}
    assert house.stages.media == [["ref-1", "ref-2", "ref-3"]]
    assert (trace.images, trace.audios, trace.cache) == (2, 1, {"miss": 3})


def test_all_are_encoded_at_once(house: House) -> None:
    house.stages.encodings = deque([[0.01]])
    run(text(house, [image(_number(i)) for i in range(5)] + [audio(_number(i)) for i in range(5)]))
    assert house.stages.peak_encoding == 10


def test_a_medium_twice_in_a_request_is_encoded_once(house: House) -> None:
    _, trace = run(outcome(house, [image(), image(), audio()]))
    assert len(house.stages.encoded) == 2
    assert house.stages.media[0][0] == house.stages.media[0][1]
    assert trace.cache == {"miss": 2, "shared": 1}


def test_a_medium_that_comes_back_is_encoded_once(house: House) -> None:
    async def main() -> None:
        await text(house, [image()])
        _, trace = await outcome(house, [image()])
        assert trace.cache == {"hit": 1}

    run(main())
    assert len(house.stages.encoded) == 1
    assert house.metrics["cache_lookups"].total(outcome="hit") == 1


def test_simultaneous_requests_share_an_encoding(house: House) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        house.stages.encodings = deque([[gate]])
        work = [asyncio.ensure_future(text(house, [image()])) for _ in range(4)]
        await until(lambda: house.stages.encoding)
        await asyncio.sleep(0.02)
        gate.set()
        assert await asyncio.gather(*work) == ["Hello, world"] * 4

    run(main())
    assert len(house.stages.encoded) == 1


def test_the_same_bytes_as_picture_and_as_sound_are_two_media(house: House) -> None:
    run(text(house, [image("AA=="), audio("AA==")]))
    assert sorted(modality for modality, _ in house.stages.encoded) == ["audio", "image"]


def test_the_key_is_what_the_embeds_depend_on(house: House, config: ModelConfig) -> None:
    digest = house.completions._digest
    picture, sound = MediaPart("image", "url a", "p"), MediaPart("audio", "url b", "q")
    assert digest(picture, b"x") == digest(MediaPart("image", "url c", "r"), b"x")
    assert len({digest(picture, b"x"), digest(picture, b"y"), digest(sound, b"x")}) == 3


def test_what_another_checkpoint_computed_is_neither_kept_nor_named(house: House) -> None:
    """While a cluster changes to a new one, old encoders still answer."""
    run(text(house, [image()]))
    assert house.stages.requests[-1].media_keys != (None,)
    house.completions.checkpoint = "new"
    for _ in range(2):
        run(text(house, [image()]))
        assert house.stages.requests[-1].media_keys == (None,)
    assert len(house.stages.encoded) == 3
    house.stages.checkpoint = "new"
    for _ in range(2):
        run(text(house, [image()]))
    assert len(house.stages.encoded) == 4
    (named,) = house.stages.requests[-1].media_keys
    assert named not in (None, *house.stages.requests[0].media_keys), "a name is of one checkpoint"


def test_audio_as_data_url(house: House) -> None:
    run(text(house, [audio("data:audio/wav;base64,AQ==")]))
    assert house.stages.encoded == [("audio", b"\x01")]


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (image("!!"), InvalidMedia, "base64"),
        (audio("!!"), InvalidMedia, "base64"),
        (image(""), InvalidMedia, "empty"),
        (image(base64.b64encode(bytes(101)).decode()), MediaTooLarge, "100"),
        ({"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}, InvalidMedia, "doesn't fetch"),
        (audio("https://example.com/a.wav"), InvalidMedia, "doesn't fetch"),
    ],
)
def test_the_bad_one_is_named(house: House, bad: Any, error: type[InvalidRequest], words: str) -> None:
    house.configure(max_media_bytes=100)
    with pytest.raises(error, match=words) as caught:
        run(text(house, [image(), {"type": "text", "text": "x"}, bad]))
    assert caught.value.param == "messages[0].content[2]"
    assert "messages[0].content[2]" in caught.value.message
    assert not house.stages.encoded


def test_by_url(house: House) -> None:
    async def main(site: Site) -> None:
        house.configure(fetch={"enabled": True, "allow_private": True, "max_bytes": 100})
        picture = {"type": "image_url", "image_url": {"url": site.url("/picture")}}
        _, trace = await outcome(house, [picture, audio(site.url("/picture"))])
        assert house.stages.encoded == [("image", b"picture"), ("audio", b"picture")]
        assert trace.fetch_seconds > 0
        with pytest.raises(MediaTooLarge) as caught:
            await text(house, [image(), audio(site.url("/size/101"))])
        assert caught.value.param == "messages[0].content[1]"

    with_site(main)


def test_a_medium_that_an_encoder_refuses_is_named(house: House) -> None:
    # Whichever of the two is encoded first.
    house.stages.encodings = deque([[task_error(InvalidMedia("no picture", "digest"))], [0.01]])
    with pytest.raises(InvalidMedia) as caught:
        run(text(house, [image("AA=="), image("AQ==")]))
    assert caught.value.param == "messages[0].content[0]"
    assert house.idle()


def test_the_first_failure_cancels_the_rest(house: House) -> None:
    house.stages.encodings = deque([[0.005, task_error(Overloaded("full"))], [5.0]])
    with pytest.raises(Overloaded):
        run(text(house, [image(_number(i)) for i in range(4)]), seconds=2)
    assert house.stages.encode_cancelled == 3
    assert house.idle()


def test_cancelling_cancels_the_encoding(house: House) -> None:
    async def main() -> None:
        house.stages.encodings = deque([[5.0]])
        work = asyncio.ensure_future(text(house, [image(), audio()]))
        await until(lambda: house.stages.encoding == 2)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await until(lambda: house.stages.encode_cancelled == 2)
        assert house.idle()

    run(main())


def test_cancelling_one_of_two_keeps_their_common_encoding(house: House) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        house.stages.encodings = deque([[gate]])
        first = asyncio.ensure_future(text(house, [image()]))
        await until(lambda: house.stages.encoding)
        second = asyncio.ensure_future(text(house, [image()]))
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.set()
        assert await second == "Hello, world"

    run(main())
    assert (len(house.stages.encoded), house.stages.encode_cancelled) == (1, 0)


def _number(i: int) -> str:
    return base64.b64encode(bytes([i])).decode()
