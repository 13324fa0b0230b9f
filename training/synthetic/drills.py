"""Drills of what was learnt least, to train on: texts whose letters or words come again, so that what comes next
depends on more than what came last; names in characters that are spelled by their bytes; counts of two and more; and
which of two things stands where."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from .copying import copy_example
from .example import Example, Language, Split, assistant, turns, user
from .lettering import cased, lettering_example, random_code
from .memory import SYLLABLES, TOLD, made_up_name
from .scene import COLOURS, Scene, draw, random_scene
from .scene_questions import Pair, every_count, every_property, every_relation
from .vocabulary import CHARACTERS_ZH, CODE_CHARACTERS, WORDS_EN

NAMED = 0.3  # how often it is a name, and not a text to repeat
MOST_WORDS = 10
MOST_QUESTIONS = 8  # about a scene


def text_drill(rng: random.Random, language: Language, split: Split) -> Example:
    """2 to 5 texts to repeat, or a name to remember."""
    if rng.random() >= NAMED:
        return copy_example(rng, language, split, text_of=_phrase)
    told, reply, questions = TOLD[language]["name"]
    name = made_up_name(rng, language, rare=1.0)
    conversation = [user(rng.choice(told).format(name)), assistant(reply.format(name))]
    for question in rng.sample(questions, rng.randint(1, 3)):
        conversation += [user(question), assistant(name)]
    return Example("memory", language, conversation)


def _printed_text(rng: random.Random, language: Language, split: Split, max_length: int) -> str:
    """Two to `max_length` letters, most of them twice."""
    if language == "zh" and rng.random() < 0.7:
        return _from_few(rng, CHARACTERS_ZH, max_length)
    kind = rng.random()
    if kind < 0.3 or language == "zh":
        return _from_few(rng, "123456789", max_length)  # no 0 at the beginning of a number
    if kind < 0.6:
        return _from_few(rng, CODE_CHARACTERS, max_length)
    return cased(rng, _word(rng, rng.sample(SYLLABLES, rng.randint(1, 3)), max_length), split)


print_drill = partial(lettering_example, text_of=_printed_text)
"""A line of such letters, drawn; with `printed` told in another way."""


def count_drill(
    rng: random.Random, language: Language, split: Split, drawn: Callable[[Scene], Any] | None = None
) -> Example:
    """3 to 6 things in one to three colours, and how many there are of each colour and shape. In other scenes a colour
    comes once nearly always, and "1" was what a decoder said to nearly all counts of a colour."""
    scene = random_scene(rng, rng.randint(3, 6), colours=rng.sample(tuple(COLOURS), rng.randint(1, 3)))
    pairs = every_count(rng, scene, language)[:MOST_QUESTIONS]
    return Example("shapes", language, turns(pairs, image=(drawn or draw)(scene)))


def relation_drill(
    rng: random.Random, language: Language, split: Split, drawn: Callable[[Scene], Any] | None = None
) -> Example:
    """2 to 5 things, and which stands left of or above which."""
    return _asked(every_relation, rng, 2, language, drawn)


def property_drill(
    rng: random.Random, language: Language, split: Split, drawn: Callable[[Scene], Any] | None = None
) -> Example:
    """1 to 5 things, and which colour, which shape and where each is."""
    return _asked(every_property, rng, 1, language, drawn)


def _asked(
    questions: Callable[[random.Random, Scene, Language], list[Pair]],
    rng: random.Random,
    fewest: int,
    language: Language,
    drawn: Callable[[Scene], Any] | None,
) -> Example:
    while True:
        scene = random_scene(rng, rng.randint(fewest, 5))
        if pairs := questions(rng, scene, language)[:MOST_QUESTIONS]:
            return Example("shapes", language, turns(pairs, image=(drawn or draw)(scene)))


def _phrase(rng: random.Random, language: Language, split: Split) -> str:
    """Words of the same few pieces, some of them twice, in letters of both cases; or characters of a few."""
    count = rng.choice((1, rng.randint(2, MOST_WORDS)))
    if language == "zh" and rng.random() < 0.6:
        pieces = [made_up_name(rng, language, rare=1.0), *rng.sample(CHARACTERS_ZH, rng.randint(1, 3))]
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
    return random_code(rng, rng.randint(2, most), rng.sample(letters, rng.randint(2, 5)))
