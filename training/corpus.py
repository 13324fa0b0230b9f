"""The lines that the default checkpoint's tokenizer is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .synthetic import compare, copying, dictation, lettering, page
from .synthetic.arithmetic import sum_example
from .synthetic.facts import fact_example
from .synthetic.informal import informal, typed
from .synthetic.memory import told_example
from .synthetic.outside import refusal_example
from .synthetic.scene import random_scene
from .synthetic.scene_questions import questions
from .synthetic.smalltalk import greeting_example
from .synthetic.vocabulary import CHARACTERS_ZH, WORDS_EN
from .synthetic.words import CTC_UNITS, phrase
from .synthetic.world import LANGUAGES

TEXT = Path(__file__).parent / "text"
SPELLED = frozenset(form for word in WORDS_EN for form in (word, word.capitalize()))
"""Words that pictures show: they are read and written letter by letter, but for those that voices say, too."""

EXAMPLES = 250
"""Of each kind and language."""
CERTAIN = (*CHARACTERS_ZH, *CTC_UNITS)
"""What pictures show and voices say; each is a token, however rare it is in the sentences."""


def tokenizer_lines() -> Iterator[str]:
    """Bilingual prose of our own, and what the little world says in its training split."""
    for file in sorted(TEXT.glob("*.txt")):
        yield from file.read_text("utf-8").splitlines()
    for wordings in (copying.REQUESTS, dictation.REQUESTS, lettering.QUESTIONS, page.QUESTIONS, compare.WORDINGS):
        for language in LANGUAGES:
            yield from _texts(wordings[language])
    for language in LANGUAGES:
        for index in range(EXAMPLES):
            rng = random.Random(f"tokenizer {language} {index}")
            yield phrase(rng, language)
            for question, answer in questions(rng, random_scene(rng), language, spoken=False):
                yield from (typed(rng, question, language), answer)
            for draw in (sum_example, fact_example, greeting_example, refusal_example, told_example):
                for turn in informal(rng, draw(rng, language, "train")).conversations:
                    yield turn["content"]["text"]


def _texts(wordings: Any) -> Iterator[str]:
    """All strings within, often enough to count."""
    if isinstance(wordings, str):
        yield from [wordings] * 20
        return
    for value in wordings.values() if isinstance(wordings, dict) else wordings:
        yield from _texts(value)
