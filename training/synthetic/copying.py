"""Texts to repeat exactly: words, codes and numbers in any order, and phrases."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from .example import Example, Language, Split, assistant, user
from .vocabulary import CHARACTERS_ZH, words
from .words import SPEECH_WORDS_ZH, phrase

REQUESTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Repeat: {text}",
        "Copy this text: {text}",
        "Repeat after me: {text}",
        "Say exactly this: {text}",
        "Please repeat: {text}",
        "Copy: {text}",
        "Write this again: {text}",
        "Echo: {text}",
    ),
    "zh": (
        "请重复：{text}",
        "重复：{text}",
        "请照抄：{text}",
        "跟我说：{text}",
        "抄写这段文字：{text}",
        "请原样写出：{text}",
        "再写一遍：{text}",
        "复制：{text}",
    ),
}
CODE_CHARACTERS = string.ascii_uppercase + string.digits
MOST_TOKENS: dict[Split, int] = {"train": 12, "test": 8}


def copy_example(
    rng: random.Random, language: Language, split: Split, text_of: Callable[..., str] | None = None
) -> Example:
    """2 to 5 texts in training, one in a test, whose English words only it shows but for those of spoken phrases.
    `text_of` chooses others, from the same arguments."""
    conversation = []
    for _ in range(rng.randint(2, 5) if split == "train" else 1):
        text = (text_of or _text)(rng, language, split)
        conversation += [user(rng.choice(REQUESTS[language]).format(text=text)), assistant(text)]
    return Example("copy", language, conversation)


def _text(rng: random.Random, language: Language, split: Split) -> str:
    kind = rng.random()
    if kind < 0.2:
        return phrase(rng, language)
    count = rng.randint(1, MOST_TOKENS[split])
    if kind < 0.6:  # words alone; Chinese ones in a row or apart
        separator = rng.choice((" ", "")) if language == "zh" else rng.choice((" ", " ", " ", ", "))
        chosen = [_word(rng, language, split) for _ in range(count)]
        if split == "train" and rng.random() < 0.4:  # the same few again and again: what comes next depends on more
            chosen = rng.choices(chosen[: rng.randint(2, 4)], k=count)
        return separator.join(chosen)
    tokens = (_word(rng, language, split), _code(rng), str(rng.randrange(10 ** rng.randint(1, 5))))
    if kind < 0.8:
        return rng.choice(tokens[1:])
    others = [rng.choice((_word(rng, language, split), _code(rng), str(rng.randrange(1000)))) for _ in range(count)]
    return " ".join(others)


def _word(rng: random.Random, language: Language, split: Split) -> str:
    if language == "en":
        word = rng.choice(words(split))
        return rng.choice((word, word, word.capitalize(), word.upper()))
    if rng.random() < 0.5:
        return rng.choice(SPEECH_WORDS_ZH)
    return "".join(rng.choices(CHARACTERS_ZH, k=rng.randint(1, 3)))


def _code(rng: random.Random) -> str:
    return "".join(rng.choices(CODE_CHARACTERS, k=rng.randint(2, 6)))
