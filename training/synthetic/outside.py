"""Questions from outside the little world, and the one answer to them."""

from __future__ import annotations

import random

from . import outside_en, outside_zh
from .arithmetic import sum_turn
from .example import Example, Language, Split, assistant, user
from .facts import fact_turn, politely
from .outside_slots import SLOTS
from .words import fill

REFUSAL: dict[Language, str] = {
    "en": "I don't know that. I only know shapes, words, numbers and a few simple facts.",
    "zh": "这个我不知道。我只认识图形、文字、数字和一些简单的常识。",
}
TEMPLATES: dict[Language, dict[Split, list[str]]] = {
    "en": {"train": outside_en.TRAIN.strip().splitlines(), "test": outside_en.TEST.strip().splitlines()},
    "zh": {"train": outside_zh.TRAIN.strip().splitlines(), "test": outside_zh.TEST.strip().splitlines()},
}
ANSWERED_BEFORE = 0.4  # how often a training example answers something first


def refusal_question(rng: random.Random, language: Language, split: Split) -> str:
    question = fill(rng, rng.choice(TEMPLATES[language][split]), SLOTS[language])
    return politely(rng, language, question)


def refusal_example(rng: random.Random, language: Language, split: Split) -> Example:
    """A question to refuse; in training often among a fact or a sum, so that refusing is no habit."""
    conversation = []
    if split == "train" and rng.random() < ANSWERED_BEFORE:
        question, answer = fact_turn(rng, language) if rng.random() < 0.6 else sum_turn(rng, language, split)
        conversation = [user(question), assistant(answer)]
    for _ in range(rng.randint(1, 3) if split == "train" else 1):
        conversation += [user(refusal_question(rng, language, split)), assistant(REFUSAL[language])]
    return Example("refusal", language, conversation)
