"""A completion from the checked request to its last delta; the stages are scripted, the rest is real."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors

from deployments.api_errors import ApiError
from deployments.codec import Piece
from deployments.completion import ATTEMPTS, Completions, MediaPart, Trace, read_messages
from deployments.protocol import ChatCompletionRequest
from pipeline.config import ModelConfig
from pipeline.errors import GenerationFailed, InvalidMedia, InvalidRequest, MediaTooLarge, Overloaded
from pipeline.types import ChatRequest, Delta, Message

from .fakes import (
    MODEL,
    USAGE,
    FakeReadiness,
    FakeStages,
    House,
    audio,
    chat,
    image,
    logged,
    pieces,
    run,
    task_error,
    until,
)
from .sites import Site, with_site


def request(content: Any = "hi", **fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(chat(content, **fields))


async def text(house: House, content: Any = "hi", **fields: Any) -> str:
    """The first answer's text."""
    return (await outcome(house, content, **fields))[0]


async def outcome(house: House, content: Any = "hi", **fields: Any) -> tuple[str, Trace]:
    trace = Trace("id")
    deltas = [delta async for piece in house.completions.run(request(content, **fields), trace) for delta in piece]
    return "".join(delta.text for delta in deltas), trace


def lost() -> BaseException:
    return task_error(ray_errors.ObjectLostError("ab", None, ""))


class TestReadMessages:
    def read(self, *messages: dict[str, Any]) -> tuple[list[Message], list[MediaPart]]:
        return read_messages(ChatCompletionRequest.model_validate({"model": MODEL, "messages": list(messages)}))

    def test_text(self) -> None:
        messages, media = self.read(
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"},
        )
        assert messages == [Message("system", "Be kind."), Message("user", "a\nb"), Message("assistant", "c")]
        assert media == []

    def test_developer_is_system(self) -> None:
        messages, _ = self.read({"role": "developer", "content": "Be kind."})
        assert messages == [Message("system", "Be kind.")]

    def test_media_are_numbered_over_all_turns(self) -> None:
        part = {"type": "text", "text": "t"}
        messages, media = self.read(
            {"role": "user", "content": [audio("AA=="), part, image("AQ==")]},
            {"role": "assistant", "content": "so"},
            {"role": "user", "content": [image("Ag=="), audio("Aw=="), image("BA==")]},
        )
        assert messages[0] == Message("user", "t", images=(1,), audios=(0,))
        assert messages[2] == Message("user", "", images=(2, 4), audios=(3,))
        assert [m.modality for m in media] == ["audio", "image", "image", "audio", "image"]
        assert [m.param for m in media] == [
            "messages[0].content[0]",
            "messages[0].content[2]",
            "messages[2].content[0]",
            "messages[2].content[1]",
            "messages[2].content[2]",
        ]
        assert media[0].source == "AA=="
        assert media[1].source == "data:image/png;base64,AQ=="


class TestText:
    def test_encoders_are_not_touched(self, house: House) -> None:
        house.readiness.down = {"VisionEncoder", "AudioEncoder"}
        answer, trace = run(outcome(house))
        assert answer == "Hello, world"
        assert house.stages.encoded == []
        assert house.stages.media == [[]]
        assert (trace.images, trace.audios, trace.cache) == (0, 0, {})
        assert (trace.completion_tokens, trace.usage) == (3, USAGE)
        assert trace.begin <= (trace.first_token or 0) <= (trace.last_token or 0)

    def test_what_the_decoder_gets(self, house: House, config: ModelConfig) -> None:
        run(text(house, "hi", temperature=0, n=2))
        (sent,) = house.stages.requests
        params = request(temperature=0).sampling(config.generation)
        assert sent == ChatRequest((Message("user", "hi"),), params, 2, "id", stream=False)

    @pytest.mark.parametrize(
        ("settings", "content", "fields", "status", "param"),
        [
            ({"max_text_characters": 10}, "x" * 11, {}, 400, "messages"),
            ({"max_text_characters": 10}, [{"type": "text", "text": "12345"}] * 2, {}, 400, "messages"),
            ({"max_media": 2}, [image(), image(), audio()], {}, 413, "messages"),
            ({"max_answers": 2}, "x", {"n": 3}, 400, "n"),
        ],
    )
    def test_limits(
        self, house: House, settings: Any, content: Any, fields: dict[str, Any], status: int, param: str
    ) -> None:
        house.configure(**settings)
        with pytest.raises(ApiError) as caught:
            run(text(house, content, **fields))
        assert (caught.value.status_code, caught.value.body.error.param) == (status, param)
        assert not house.stages.encoded
        assert not house.stages.requests

    def test_at_the_limits(self, house: House) -> None:
        house.configure(max_text_characters=2, max_media=2, max_answers=2)
        run(text(house, [image(), audio(), {"type": "text", "text": "12"}], n=2))
        assert len(house.stages.encoded) == 2
        assert [request.n for request in house.stages.requests] == [2]

    @pytest.mark.parametrize(
        ("content", "down", "missing"),
        [
            ("hi", {"LanguageDecoder"}, "LanguageDecoder"),
            ([image()], {"VisionEncoder", "AudioEncoder"}, "VisionEncoder"),
            ([audio()], {"AudioEncoder"}, "AudioEncoder"),
        ],
    )
    def test_a_stage_is_not_ready(self, house: House, content: Any, down: set[str], missing: str) -> None:
        house.readiness.down = down
        with pytest.raises(ApiError, match=f"not ready yet: {missing}$") as caught:
            run(text(house, content))
        assert (caught.value.status_code, caught.value.body.error.code) == (503, "not_ready")
        assert not house.stages.encoded


class TestMedia:
    def test_the_decoder_gets_references_in_order(self, house: House) -> None:
        _, trace = run(outcome(house, [image("AA=="), audio("AQ=="), image("Ag==")]))
        assert dict(house.stages.encoded) == {"image": b"\x02", "audio": b"\x01"}
        assert house.stages.media == [["ref-1", "ref-2", "ref-3"]]
        assert (trace.images, trace.audios, trace.cache) == (2, 1, {"miss": 3})

    def test_all_are_encoded_at_once(self, house: House) -> None:
        house.stages.encodings = deque([[0.01]])
        run(text(house, [image(_number(i)) for i in range(5)] + [audio(_number(i)) for i in range(5)]))
        assert house.stages.peak_encoding == 10

    def test_a_medium_twice_in_a_request_is_encoded_once(self, house: House) -> None:
        _, trace = run(outcome(house, [image(), image(), audio()]))
        assert len(house.stages.encoded) == 2
        assert house.stages.media[0][0] == house.stages.media[0][1]
        assert trace.cache == {"miss": 2, "shared": 1}

    def test_a_medium_that_comes_back_is_encoded_once(self, house: House) -> None:
        async def main() -> None:
            await text(house, [image()])
            _, trace = await outcome(house, [image()])
            assert trace.cache == {"hit": 1}

        run(main())
        assert len(house.stages.encoded) == 1
        assert house.metrics["cache_lookups"].total(outcome="hit") == 1

    def test_simultaneous_requests_share_an_encoding(self, house: House) -> None:
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

    def test_the_same_bytes_as_picture_and_as_sound_are_two_media(self, house: House) -> None:
        run(text(house, [image("AA=="), audio("AA==")]))
        assert sorted(modality for modality, _ in house.stages.encoded) == ["audio", "image"]

    def test_the_key_is_what_the_embeds_depend_on(self, house: House, config: ModelConfig) -> None:
        digest = house.completions._digest
        picture, sound = MediaPart("image", "url a", "p"), MediaPart("audio", "url b", "q")
        assert digest(picture, b"x") == digest(MediaPart("image", "url c", "r"), b"x")
        assert len({digest(picture, b"x"), digest(picture, b"y"), digest(sound, b"x")}) == 3

    def test_audio_as_data_url(self, house: House) -> None:
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
    def test_the_bad_one_is_named(self, house: House, bad: Any, error: type[InvalidRequest], words: str) -> None:
        house.configure(max_media_bytes=100)
        with pytest.raises(error, match=words) as caught:
            run(text(house, [image(), {"type": "text", "text": "x"}, bad]))
        assert caught.value.param == "messages[0].content[2]"
        assert "messages[0].content[2]" in caught.value.message
        assert not house.stages.encoded

    def test_by_url(self, house: House) -> None:
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

    def test_a_medium_that_an_encoder_refuses_is_named(self, house: House) -> None:
        # Whichever of the two is encoded first.
        house.stages.encodings = deque([[task_error(InvalidMedia("no picture", "digest"))], [0.01]])
        with pytest.raises(InvalidMedia) as caught:
            run(text(house, [image("AA=="), image("AQ==")]))
        assert caught.value.param == "messages[0].content[0]"
        assert house.idle()

    def test_the_first_failure_cancels_the_rest(self, house: House) -> None:
        house.stages.encodings = deque([[0.005, task_error(Overloaded("full"))], [5.0]])
        with pytest.raises(Overloaded):
            run(text(house, [image(_number(i)) for i in range(4)]), seconds=2)
        assert house.stages.encode_cancelled == 3
        assert house.idle()

    def test_cancelling_cancels_the_encoding(self, house: House) -> None:
        async def main() -> None:
            house.stages.encodings = deque([[5.0]])
            work = asyncio.ensure_future(text(house, [image(), audio()]))
            await until(lambda: house.stages.encoding == 2)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await until(lambda: house.stages.encode_cancelled == 2)
            assert house.idle()

        run(main())

    def test_cancelling_one_of_two_keeps_their_common_encoding(self, house: House) -> None:
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


class TestRetry:
    def test_a_lost_object_is_encoded_again_unnoticed(self, house: House) -> None:
        async def main() -> None:
            await text(house, [image()])
            house.stages.answers = deque([[lost()], pieces("again")])
            with logged() as lines:
                answer, trace = await outcome(house, [image()])
            assert answer == "again"
            assert [line.levelname for line in lines if line.getMessage().startswith("embeds_lost ")] == ["WARNING"]
            assert trace.cache == {"hit": 1, "miss": 1}
            assert trace.completion_tokens == 1

        run(main())
        assert house.stages.media == [["ref-1"], ["ref-1"], ["ref-2"]]
        assert house.idle()

    def test_a_loss_that_stays_is_told_in_the_end(self, house: House) -> None:
        house.stages.answers = deque([[lost()]])
        with pytest.raises(ray_errors.ObjectLostError):
            run(text(house, [image()]))
        assert len(house.stages.requests) == len(house.stages.encoded) == ATTEMPTS
        assert house.idle()

    @pytest.mark.parametrize(
        "error",
        [
            ray_errors.ActorDiedError(),
            ray_errors.ActorUnavailableError("m", None),
            serve_errors.ReplicaUnavailableError("r"),
            task_error(ray_errors.ActorDiedError()),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_a_decoder_that_died_is_replaced(self, house: House, error: BaseException) -> None:
        house.stages.answers = deque([[error], pieces("again")])
        assert run(text(house, [image()])) == "again"
        assert len(house.stages.encoded) == 1
        assert (len(house.stages.requests), house.stages.open) == (2, 0)

    def test_an_encoder_that_died_is_replaced(self, house: House) -> None:
        house.stages.encodings = deque([[ray_errors.ActorDiedError()], []])
        assert run(text(house, [image()])) == "Hello, world"

    @pytest.mark.parametrize("error", [lost(), ray_errors.ActorDiedError()], ids=["lost", "died"])
    def test_nothing_is_repeated_after_the_first_piece(self, house: House, error: BaseException) -> None:
        house.stages.answers = deque([[*pieces("a", "b")[:1], error]])
        with pytest.raises(type(error)):
            run(text(house))
        assert len(house.stages.requests) == 1
        assert house.idle()

    @pytest.mark.parametrize("error", [task_error(Overloaded("full")), task_error(InvalidRequest("no")), ValueError()])
    def test_other_errors_are_not_repeated(self, house: House, error: BaseException) -> None:
        house.stages.answers = deque([[error]])
        with pytest.raises(type(error)):
            run(text(house))
        assert len(house.stages.requests) == 1
        assert house.idle()


class TestEnd:
    def test_closing_closes_the_decoders_stream(self, house: House) -> None:
        async def main() -> None:
            house.stages.answers = deque([[*pieces("a", "b")[:1], 5.0]])
            answer = house.completions.run(request(), Trace("id"))
            assert [delta.text for delta in await anext(answer)] == ["a"]
            await answer.aclose()
            assert (house.stages.closed, house.stages.left) == (1, 1)

        run(main())

    @pytest.mark.parametrize("script", [[5.0], [*pieces("a", "b")[:1], 5.0]], ids=["before", "after"])
    def test_cancelling_closes_the_decoders_stream(self, house: House, script: list[Any]) -> None:
        async def main() -> None:
            house.stages.answers = deque([script])
            work = asyncio.ensure_future(text(house))
            await until(lambda: house.stages.open)
            await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert (house.stages.closed, house.stages.left) == (1, 1)

        run(main())

    @pytest.mark.parametrize("told", ["NaN in the logits", None])
    def test_a_sequence_that_failed(self, house: House, told: str | None) -> None:
        house.stages.answers = deque([[Piece([Delta(0, "", finish_reason="error", error=told)], USAGE)]])
        with pytest.raises(GenerationFailed, match=told or "the model failed"):
            run(text(house))
        assert house.idle()

    def test_tokens_of_all_answers_count(self, house: House) -> None:
        house.stages.answers = deque(
            [[Piece([Delta(0, "a", (1, 2)), Delta(1, "b", (3,))], USAGE), Piece([Delta(1, "", (4,), (), "stop")])]]
        )
        _, trace = run(outcome(house, n=2))
        assert trace.completion_tokens == 4


def test_new_settings_reach_cache_and_fetcher(config: ModelConfig, mini_path: Path) -> None:
    house = House(config)
    completions: Completions = house.completions
    cache = completions.cache
    house.configure(media_cache_bytes=50, fetch={"enabled": True, "max_bytes": 7})
    assert completions.cache is cache  # what is pending goes on
    assert cache.max_bytes == 50
    assert completions.fetcher.settings.max_bytes == 7
    assert isinstance(house.stages, FakeStages)
    assert isinstance(house.readiness, FakeReadiness)
