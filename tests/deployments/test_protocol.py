"""What the wire format accepts, and which field each refusal names."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from deployments.api_errors import ApiError, validation_error
from deployments.protocol import ChatCompletionRequest

from .fakes import MODEL, chat, image


def parse(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(chat(**fields))


def refusal(body: Any) -> ApiError:
    """Over HTTP pydantic's locations begin with 'body'; field_path knows both."""
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate(body)
    return validation_error(caught.value.errors())


ACCEPTED: dict[str, list[Any]] = {
    "stream": [True, False, None],
    "n": [1, 8, None],
    "max_tokens": [1, 4096, None],
    "max_completion_tokens": [1, None],
    "stop": ["\n", ["a", "b"], [], None],
    "seed": [0, -(2**63), 2**63 - 1, None],
    "temperature": [0, 0.7, 1, 2, None],
    "top_p": [0, 0.1, 1, None],
    "presence_penalty": [-2, 0, 2.0, None],
    "frequency_penalty": [-2, 0, 2.0, None],
    "logprobs": [True, False, None],
    "response_format": [{"type": "text"}, None],
    "user": ["someone", None],
    "top_k": [-1, 0, 50, None],
    "min_p": [0, 0.05, 1, None],
    "repetition_penalty": [0.5, 1, 1.2, None],
    "ignore_eos": [True, False, None],
    "min_tokens": [0, 5, None],
    "stop_token_ids": [[], [1, 2], None],
}


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in ACCEPTED.items() for v in values])
def test_accepted(name: str, value: Any) -> None:
    assert getattr(parse(**{name: value}), name) == value if not isinstance(value, dict) else parse(**{name: value})


def test_every_field_is_tried() -> None:
    elsewhere = {"model", "messages", "stream_options", "top_logprobs"}
    assert set(ACCEPTED) | elsewhere == set(ChatCompletionRequest.model_fields)


REFUSED: list[tuple[str, Any]] = [
    ("stream", "true"),
    ("stream", 1),
    ("n", 0),
    ("n", "2"),
    ("n", 1.0),
    ("n", True),
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("max_tokens", "16"),
    ("max_completion_tokens", -1),
    ("max_completion_tokens", False),
    ("stop", 5),
    ("stop", {"a": 1}),
    ("stop", ["x"] * 17),
    ("seed", 2**63),
    ("seed", -(2**63) - 1),
    ("seed", "7"),
    ("temperature", "0.7"),
    ("temperature", True),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("top_p", -0.01),
    ("top_p", 1.01),
    ("top_p", float("nan")),
    ("presence_penalty", 2.5),
    ("presence_penalty", float("nan")),
    ("frequency_penalty", -2.5),
    ("frequency_penalty", float("nan")),
    ("logprobs", 1),
    ("logprobs", "yes"),
    ("top_logprobs", 21),
    ("top_logprobs", -1),
    ("top_logprobs", True),
    ("user", 5),
    ("top_k", -2),
    ("top_k", 1.5),
    ("top_k", 2**31),
    ("min_p", -0.1),
    ("min_p", float("nan")),
    ("repetition_penalty", 0),
    ("repetition_penalty", 11),
    ("repetition_penalty", float("nan")),
    ("ignore_eos", "no"),
    ("min_tokens", -1),
    ("min_tokens", True),
    ("stop_token_ids", 5),
    ("stop_token_ids", list(range(65))),
    ("response_format", "text"),
    ("stream_options", True),
    ("messages", []),
    ("messages", "hi"),
    ("messages", None),
    ("model", None),
    ("model", 5),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=str)
def test_refused_and_named(name: str, value: Any) -> None:
    error = refusal({**chat(), name: value}).body.error
    assert error.param == name
    assert error.code == "invalid_value"
    assert error.message.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"stop_token_ids": [1, "2"]}, "stop_token_ids[1]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
    ],
)
def test_refused_inside(fields: dict[str, Any], path: str) -> None:
    error = refusal({**chat(), **fields}).body.error
    assert error.param == path
    assert error.code == "invalid_value"


TEXT = {"type": "text", "text": "look"}


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ("hi", ""),
        (5, ""),
        ({"content": "hi"}, ".role"),
        ({"role": "tool", "content": "hi"}, ".role"),
        ({"role": 5, "content": "hi"}, ".role"),
        ({"role": "user"}, ".content"),
        ({"role": "user", "content": None}, ".content"),
        ({"role": "user", "content": 5}, ".content"),
        ({"role": "user", "content": TEXT}, ".content"),
        ({"role": "user", "content": ["hi"]}, ".content[0]"),
        ({"role": "user", "content": [TEXT, {"type": "video_url"}]}, ".content[1].type"),
        ({"role": "user", "content": [TEXT, {"text": "untyped"}]}, ".content[1].type"),
        ({"role": "user", "content": [{"type": "text"}]}, ".content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, ".content[0].text"),
        ({"role": "user", "content": [TEXT, TEXT, {"type": "image_url"}]}, ".content[2].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}, ".content[0].image_url"),
        ({"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {}}]}, ".content[1].image_url.url"),
        (
            {"role": "user", "content": [TEXT, TEXT, {"type": "image_url", "image_url": {"url": 5}}]},
            ".content[2].image_url.url",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "detail": "best"}}]},
            ".content[0].image_url.detail",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "aac"}}]},
            ".content[0].input_audio.format",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"format": "wav"}}]},
            ".content[0].input_audio.data",
        ),
        ({"role": "system", "content": [{"type": "text", "text": 5}]}, ".content[0].text"),
        ({"role": "system", "content": [image()]}, ".content[0].type"),
        ({"role": "assistant", "content": [TEXT, {"type": "text"}]}, ".content[1].text"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, ".tool_calls"),
        ({"role": "assistant", "content": "x", "refusal": "no"}, ".refusal"),
    ],
    ids=str,
)
def test_ill_formed_message_is_named(message: Any, path: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}, message]}
    error = refusal(body).body.error
    assert error.param == f"messages[1]{path}"
    assert error.code == "invalid_value"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"tools": []}, "tools"),
        ({"logit_bias": {}}, "logit_bias"),
        ({"temprature": 1}, "temprature"),
        ({"str": 1}, "str"),
        ({"a[0]": 1}, "a[0]"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
        ({"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "content": "x", "prefix": True}]}, "messages[0].prefix"),
        ({"messages": [{"role": "user", "content": [{**TEXT, "cache": 1}]}]}, "messages[0].content[0].cache"),
        ({"messages": [{"role": "system", "content": [{**TEXT, "cache": 1}]}]}, "messages[0].content[0].cache"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "id": 1}}]}]},
            "messages[0].content[0].image_url.id",
        ),
    ],
    ids=str,
)
def test_unknown_field_is_named(change: dict[str, Any], path: str) -> None:
    error = refusal({**chat(), **change}).body.error
    assert error.param == path
    assert error.code == "unknown_field"
    assert path in error.message


@pytest.mark.parametrize("place", ["body", "message", "part"])
def test_of_many_unknown_fields_one_is_looked_at(place: str) -> None:
    """The first. A body of nothing else costs no more than another of its size."""
    unknown = {f"field{i}": 0 for i in range(1000)}
    part = TEXT | (unknown if place == "part" else {})
    message = {"role": "user", "content": [part]} | (unknown if place == "message" else {})
    body = {"model": MODEL, "messages": [message]} | (unknown if place == "body" else {})
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate(body)
    (complaint,) = (e for e in caught.value.errors() if "list[tagged-union" in str(e["loc"]) or place != "part")
    assert complaint["type"] == "extra_forbidden"
    assert complaint["loc"][-1] == "field0"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "logprobs: true"),
        ({"top_logprobs": 2, "logprobs": False}, "logprobs: true"),
        ({"stream_options": {"include_usage": True}}, "stream: true"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
    ],
)
def test_contradictions(fields: dict[str, Any], words: str) -> None:
    error = refusal(chat(**fields)).body.error
    assert words in error.message
    assert "Value error" not in error.message
