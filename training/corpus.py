"""The lines that the default checkpoint's tokenizer is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from .synthetic.arithmetic import sum_example
from .synthetic.facts import fact_example
from .synthetic.memory import told_example
from .synthetic.outside import refusal_example
from .synthetic.scene import random_scene
from .synthetic.scene_questions import questions
from .synthetic.smalltalk import greeting_example
from .synthetic.vocabulary import CHARACTERS_ZH, words
from .synthetic.words import CTC_UNITS, phrase
from .synthetic.world import LANGUAGES

TEXT = Path(__file__).parent / "text"
EXAMPLES = 250
"""Of each kind and language."""


def tokenizer_lines() -> Iterator[str]:
    """Bilingual prose of our own, and what the little world says in its training split."""
    for file in sorted(TEXT.glob("*.txt")):
        yield from file.read_text("utf-8").splitlines()
    for character in CHARACTERS_ZH + "".join(unit for unit in CTC_UNITS if not unit.isascii()):
        yield from [character] * 30  # one token each, however rare in the sentences
    for word in words("train"):
        yield f"{word} {word}"
    for language in LANGUAGES:
        for index in range(EXAMPLES):
            rng = random.Random(f"tokenizer {language} {index}")
            yield phrase(rng, language)
            for question, answer in questions(rng, random_scene(rng), language):
                yield from (question, answer)
            for draw in (sum_example, fact_example, greeting_example, refusal_example, told_example):
                for turn in draw(rng, language, "train").conversations:
                    yield turn["content"]["text"]
