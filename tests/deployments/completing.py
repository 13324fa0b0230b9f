"""A request to a house's completions, and what comes of it."""

from __future__ import annotations

from typing import Any

from deployments.completion import Trace
from deployments.protocol import ChatCompletionRequest

from .fakes import House, chat


def request(content: Any = "hi", **fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(chat(content, **fields))


async def text(house: House, content: Any = "hi", **fields: Any) -> str:
    """The first answer's text."""
    return (await outcome(house, content, **fields))[0]


async def outcome(house: House, content: Any = "hi", **fields: Any) -> tuple[str, Trace]:
    trace = Trace("id")
    deltas = [delta async for piece in house.completions.run(request(content, **fields), trace) for delta in piece]
    return "".join(delta.text for delta in deltas), trace
