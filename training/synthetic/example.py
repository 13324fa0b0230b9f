"""One generated conversation, and the pieces that the generators share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "test"]
"""Fonts, voices and held-out words differ between the two; seeds never meet."""

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Example:
    """A conversation in the authors' format, its media in memory.

    `conversations` are turns {"role": …, "content": {"text": …, "image": …, "audio": …}}: an image is
    a PIL picture (or a list of them), an audio a mono float32 waveform at 16 kHz. Every assistant turn
    is trained on; a test asks for the last one.
    """

    task: str
    language: Language
    conversations: list[dict[str, Any]]


Generator = Callable[[random.Random, Language, Split], Example]
"""Draws one example; all its randomness comes from the first argument."""


def user(text: str = "", **media: Any) -> dict[str, Any]:
    content = {"text": text} if text else {}
    return {"role": "user", "content": content | media}


def turns(pairs: Iterable[tuple[str, str]], **media: Any) -> list[dict[str, Any]]:
    """Questions and answers as a conversation; the media come with the first question."""
    conversation: list[dict[str, Any]] = []
    for question, answer in pairs:
        conversation += [user(question, **({} if conversation else media)), assistant(answer)]
    return conversation


def uncapitalised(text: str) -> str:
    return text[0].lower() + text[1:]


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": {"text": text}}
