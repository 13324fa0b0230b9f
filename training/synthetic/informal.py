"""Questions as people type them: American spelling, "what's", no capital, no question mark."""

from __future__ import annotations

import random
from dataclasses import replace

from .example import Example, Language, uncapitalised

MARKS = ("?", "？")


def informal(rng: random.Random, example: Example) -> Example:
    """The same example; of its questions that end in a question mark some are typed so."""
    turns = []
    for turn in example.conversations:
        content = turn["content"]
        if turn["role"] == "user" and content.get("text"):
            content = content | {"text": typed(rng, content["text"], example.language)}
        turns.append({"role": turn["role"], "content": content})
    return replace(example, conversations=turns)


def typed(rng: random.Random, question: str, language: Language) -> str:
    """What isn't a question stays as it is."""
    if not question.endswith(MARKS):
        return question
    if language == "en":
        if rng.random() < 0.3:
            question = question.replace("colour", "color").replace("centre", "center").replace("grey", "gray")
        if rng.random() < 0.15:
            question = question.replace("What is ", "What's ")
        if rng.random() < 0.15:
            question = uncapitalised(question)
    return question[:-1].rstrip() if rng.random() < 0.1 else question
