"""Recordings: written down when they come alone, answered when they ask about a picture."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .example import Example, Language, Split, assistant, user
from .scene import Scene, draw, random_scene
from .scene_questions import questions
from .speech import record
from .words import phrase

REQUESTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Write down what is said.",
        "What do you hear?",
        "Transcribe the recording.",
        "What is said in the recording?",
        "Please write down the words you hear.",
        "Transcribe this.",
        "What did I say?",
        "Turn this speech into text.",
    ),
    "zh": (
        "请写下你听到的话。",
        "录音里说了什么？",
        "你听到了什么？",
        "请把录音写成文字。",
        "写下这段话。",
        "我说了什么？",
        "把语音转成文字。",
        "请听写。",
    ),
}
SILENT_REQUEST = 0.25  # how often nothing is written beside the recording


def transcription_example(
    rng: random.Random, language: Language, split: Split, recorded: Callable[..., Any] | None = None
) -> Example:
    said = phrase(rng, language)
    request = "" if rng.random() < SILENT_REQUEST else rng.choice(REQUESTS[language])
    return Example(
        "speech", language, [user(request, audio=(recorded or record)(rng, said, language, split)), assistant(said)]
    )


def spoken_example(
    rng: random.Random,
    language: Language,
    split: Split,
    drawn: Callable[[Scene], Any] | None = None,
    recorded: Callable[..., Any] | None = None,
) -> Example:
    """Spoken questions about a picture, which comes with the first; one question in a test.

    `drawn` and `recorded` draw and speak instead of `draw` and `record`.
    """
    scene = random_scene(rng)
    asked = questions(rng, scene, language)
    asked = rng.sample(asked, min(len(asked), rng.randint(1, 4) if split == "train" else 1))
    conversation = []
    for turn, (question, answer) in enumerate(asked):
        media: dict[str, Any] = {} if turn else {"image": (drawn or draw)(scene)}
        conversation += [user(**media, audio=(recorded or record)(rng, question, language, split)), assistant(answer)]
    return Example("spoken", language, conversation)
