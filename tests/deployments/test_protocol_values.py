"""What accepted messages and sampling fields become."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage

from deployments.protocol import ChatCompletionRequest, ResponseMessage
from pipeline.config import GenerationDefaults
from pipeline.types import SamplingParams

from .fakes import MODEL, audio, chat, image
from .test_protocol import TEXT, parse


class TestMessages:
    def test_developer_is_system(self) -> None:
        body = ChatCompletionRequest.model_validate(
            {"model": MODEL, "messages": [{"role": "developer", "content": "be kind"}, *chat()["messages"]]}
        )
        assert body.messages[0].role == "developer"

    def test_text_parts(self) -> None:
        for role in ("system", "developer", "user", "assistant"):
            body = ChatCompletionRequest.model_validate(
                {"model": MODEL, "messages": [*chat()["messages"], {"role": role, "content": [TEXT]}]}
            )
            assert [part.model_dump() for part in body.messages[-1].content] == [TEXT]  # type: ignore[union-attr]

    def test_media_in_any_number_and_order(self) -> None:
        parts = [audio(), TEXT, image(), image(), TEXT, audio()]
        body = parse(content=parts)
        assert [part.type for part in body.messages[0].content] == [part["type"] for part in parts]  # type: ignore[union-attr]

    @pytest.mark.parametrize("detail", ["auto", "low", "high"])
    def test_detail(self, detail: str) -> None:
        part = {"type": "image_url", "image_url": {"url": "http://x/a.png", "detail": detail}}
        assert parse(content=[part]).messages[0].content[0].model_dump() == part  # type: ignore[union-attr,index]

    def test_an_answer_comes_back_as_the_client_holds_it(self) -> None:
        # What `messages.append(response.choices[0].message)` sends, in the client's several ways.
        wire = ResponseMessage(content="A cat.").model_dump()
        message = ChatCompletionMessage.model_validate(wire)
        for sent in (wire, message.model_dump(), message.model_dump(exclude_unset=True), message.to_dict()):
            conversation = [*chat()["messages"], sent, {"role": "user", "content": "Sure?"}]
            body = ChatCompletionRequest.model_validate({"model": MODEL, "messages": conversation})
            assert body.messages[1].content == "A cat."


class TestSampling:
    def test_silence_means_the_checkpoints_defaults(self) -> None:
        defaults = GenerationDefaults(temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)
        assert parse().sampling(defaults) == SamplingParams(
            max_tokens=None, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1
        )

    def test_null_is_silence(self) -> None:
        names = set(ChatCompletionRequest.model_fields) - {"model", "messages"}
        assert parse(**dict.fromkeys(names)).sampling(GenerationDefaults()) == SamplingParams()

    def test_what_was_sent_wins(self) -> None:
        sent = {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 3,
            "min_p": 0.1,
            "repetition_penalty": 1.5,
            "presence_penalty": -1,
            "frequency_penalty": 1,
            "seed": 0,
            "stop_token_ids": [7],
            "min_tokens": 2,
            "max_tokens": 9,
            "ignore_eos": True,
        }
        defaults = GenerationDefaults(temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)
        params = parse(**sent, stop=["a", "b"]).sampling(defaults)
        assert params == SamplingParams(**{**sent, "stop_token_ids": (7,), "stop": ("a", "b")})

    @pytest.mark.parametrize("top_k", [-1, 0])
    def test_top_k_off(self, top_k: int) -> None:
        assert parse(top_k=top_k).sampling(GenerationDefaults(top_k=50)).top_k == 0

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_both_names_of_the_limit(self, name: str) -> None:
        assert parse(**{name: 5}).sampling(GenerationDefaults()).max_tokens == 5
        assert parse(max_tokens=5, max_completion_tokens=5).sampling(GenerationDefaults()).max_tokens == 5

    @pytest.mark.parametrize(("stop", "strings"), [(None, ()), ("x", ("x",)), ([], ()), (["x", "y"], ("x", "y"))])
    def test_stop(self, stop: Any, strings: tuple[str, ...]) -> None:
        assert parse(stop=stop).sampling(GenerationDefaults()).stop == strings

    @pytest.mark.parametrize(
        ("fields", "logprobs"),
        [({}, None), ({"logprobs": False}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 3}, 3)],
    )
    def test_logprobs(self, fields: dict[str, Any], logprobs: int | None) -> None:
        assert parse(**fields).sampling(GenerationDefaults()).logprobs == logprobs
