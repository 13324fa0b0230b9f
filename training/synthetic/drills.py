"""Drills of what was learnt least, to train on: texts whose letters or words come again, so that what comes next
depends on more than what came last; and names in characters that are spelled by their bytes."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from .copying import REQUESTS
from .example import Example, Language, Split, assistant, user
from .lettering import cased, lettering_example
from .memory import NAMES, RARE, SYLLABLES, TOLD
from .vocabulary import CHARACTERS_ZH, CODE_CHARACTERS, WORDS_EN

NAMED = 0.3  # how often it is a name, and not a text to repeat
MOST_WORDS = 10


def text_drill(rng: random.Random, language: Language, split: Split) -> Example:
    """2 to 5 texts to repeat, or a name to remember."""
    conversation: list[dict[str, Any]] = []
    if rng.random() < NAMED:
        told, reply, questions = TOLD[language]["name"]
        name = _rare_name(rng, language)
        conversation += [user(rng.choice(told).format(name)), assistant(reply.format(name))]
        for question in rng.sample(questions, rng.randint(1, 3)):
            conversation += [user(question), assistant(name)]
        return Example("text drill", language, conversation)
    for _ in range(rng.randint(2, 5)):
        text = _phrase(rng, language)
        conversation += [user(rng.choice(REQUESTS[language]).format(text=text)), assistant(text)]
    return Example("text drill", language, conversation)


def _printed_text(rng: random.Random, language: Language, split: Split, max_length: int) -> str:
    """Two to `max_length` letters, most of them twice."""
    if language == "zh" and rng.random() < 0.7:
        return _from_few(rng, CHARACTERS_ZH, max_length)
    kind = rng.random()
    if kind < 0.3 or language == "zh":
        return _from_few(rng, "123456789", max_length)  # no 0 at the beginning of a number
    if kind < 0.6:
        return _from_few(rng, CODE_CHARACTERS, max_length)
    return cased(rng, _word(rng, rng.sample(SYLLABLES, rng.randint(1, 3)), max_length), "train")


print_drill = partial(lettering_example, text_of=_printed_text)
"""A line of such letters, drawn; with `printed` told in another way."""


def _phrase(rng: random.Random, language: Language) -> str:
    """Words of the same few pieces, some of them twice, in letters of both cases; or characters of a few."""
    count = rng.choice((1, rng.randint(2, MOST_WORDS)))
    if language == "zh" and rng.random() < 0.6:
        pieces = [_rare_name(rng, language), *rng.sample(CHARACTERS_ZH, rng.randint(1, 3))]
        return rng.choice(("", "", " ", "，")).join(rng.choices(pieces, k=count))
    if rng.random() < 0.15:
        return " ".join(_from_few(rng, CODE_CHARACTERS, 6) for _ in range(count))
    syllables = rng.sample(SYLLABLES, rng.randint(1, 4))
    known = [_word(rng, syllables) for _ in range(rng.randint(1, 5))]
    words = [rng.choice((word, word, word.capitalize(), word.upper())) for word in rng.choices(known, k=count)]
    return rng.choice((" ", " ", ", ")).join(words)


def _word(rng: random.Random, syllables: list[str], most: int = 9) -> str:
    """One to four syllables of these, now and then behind a letter, or the beginning of that; never a word that
    pictures show, lest it be held out."""
    while True:
        start = rng.choice(("", "", rng.choice("bcdfghjklmnprstvwz")))
        word = (start + "".join(rng.choices(syllables, k=rng.randint(1, 4))))[:most]
        if word not in WORDS_EN:
            return word
        syllables = [*syllables, rng.choice(SYLLABLES)]  # else "at" alone could come again for ever


def _from_few(rng: random.Random, letters: str, most: int) -> str:
    """Two letters at least, of two to five different ones."""
    while True:
        text = "".join(rng.choices(rng.sample(letters, rng.randint(2, 5)), k=rng.randint(2, most)))
        if text.lower() not in WORDS_EN:
            return text


def _rare_name(rng: random.Random, language: Language) -> str:
    """As `made_up_name`, in Chinese always with a character that is spelled; none of the test's."""
    while True:
        if language == "en":
            name = _word(rng, rng.sample(SYLLABLES, 2)).capitalize()
        else:
            name = "".join(rng.choices(CHARACTERS_ZH, k=rng.randint(0, 2))) + chr(rng.randrange(*RARE))
        if name not in NAMES[language]["test"]:
            return name
