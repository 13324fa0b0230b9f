"""One case as a request to a server that speaks OpenAI's API, and its answer."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

from .datasets import AUDIO_TYPES, IMAGE_TYPES, Case, Turn

Body = dict[str, Any]
"""Of a chat completion, media included: what is sent, and what an answer is kept under."""


@dataclass(frozen=True)
class Answer:
    """What came back for the request with this digest: a text, or the error that took its place.

    `seconds` include the client's retries; `tokens` are the answer's, as the server counts them (0 if it doesn't).
    """

    digest: str
    text: str
    finish_reason: str
    seconds: float
    error: str | None = None
    tokens: int = 0


def chat_body(case: Case, model: str, max_tokens: int, temperature: float, fields: Body | None = None) -> Body:
    """Reads the case's media. `fields` are set besides; None leaves one out. Raises OSError if the media have gone."""
    body = {"model": model, "max_tokens": max_tokens, "temperature": temperature} | (fields or {})
    body["messages"] = [_message(turn) for turn in case.turns]
    return {name: value for name, value in body.items() if value is not None}


def digest(body: Body) -> str:
    """Equal for equal requests: model, settings, texts and the media's bytes."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


async def ask(client: AsyncOpenAI, body: Body) -> Answer:
    """Never raises what a request can raise: a failure is an answer, too."""
    begin = time.perf_counter()
    text, reason, error, tokens = "", "error", None, 0
    try:
        asked = {name: body[name] for name in ("model", "messages")}
        rest = {name: value for name, value in body.items() if name not in asked}  # what the client may not know
        completion = await client.chat.completions.create(**asked, extra_body=rest)
        choice = completion.choices[0]
        content = choice.message.content or ""
        if not isinstance(content, str):
            raise TypeError(f"the answer's content is a {type(content).__name__}, not a text")
        text, reason = content, str(choice.finish_reason)
        tokens = (completion.usage and completion.usage.completion_tokens) or 0
    except Exception as failure:  # a server's nonsense must not end the run either
        error = f"{type(failure).__name__}: {failure}"
    return Answer(digest(body), text, reason, round(time.perf_counter() - begin, 3), error, tokens)


async def served_model(client: AsyncOpenAI) -> str:
    """The first model that the server lists."""
    models = await client.models.list()
    if not models.data:
        raise ValueError("the server lists no model; name one with --model")
    return models.data[0].id


def _message(turn: Turn) -> dict[str, Any]:
    if not (turn.images or turn.audios):
        return {"role": turn.role, "content": turn.text}
    parts: list[dict[str, Any]] = []
    for file in turn.images:
        url = f"data:image/{IMAGE_TYPES[file.suffix.lower()]};base64,{_base64(file.read_bytes())}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    for file in turn.audios:
        sound = {"data": _base64(file.read_bytes()), "format": AUDIO_TYPES[file.suffix.lower()]}
        parts.append({"type": "input_audio", "input_audio": sound})
    if turn.text:
        parts.append({"type": "text", "text": turn.text})
    return {"role": turn.role, "content": parts}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
