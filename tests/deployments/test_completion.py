"""A completion from the checked request to its last delta; the stages are scripted, the rest is real."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from deployments.api_errors import ApiError
from deployments.codec import Piece
from deployments.completion import Completions, MediaPart, Trace, read_messages
from deployments.protocol import ChatCompletionRequest
from pipeline.config import ModelConfig
from pipeline.errors import GenerationFailed
from pipeline.types import ChatRequest, Delta, Message

from .completing import outcome, request, text
from .fakes import MODEL, USAGE, FakeReadiness, FakeStages, House, audio, image, pieces, run, until


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
