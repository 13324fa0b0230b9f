"""Which option of a multiple-choice question an answer names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

LETTERS = "ABCDEFGH"
"""Where a question doesn't say what its options are."""

LONG_ANSWER = 5  # words; from here on a lone "A" is likely the article

_WRAPPED = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_LEADING = re.compile(r"[\W_]*([A-Z])\s*[.):,、]")
_MARKED = re.compile(
    r"(?:(?i:\b(?:answer|option|choice))|答案|选项|选择?)(?:\s|[:*_(\"'「“]|(?i:\bis\b)|为|是|应|选)*([A-Z])(?![A-Za-z])"
)
_ALONE = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z'])")


def chosen(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter that `answer` settles on, or None where it names none or several.

    `options` maps letters to their texts; empty: A to H, whose texts are unknown. The order of the
    attempts follows VLMEvalKit's `can_infer` (option letters first, texts last, an ambiguous answer
    is no answer; Duan et al. 2024, https://arxiv.org/abs/2407.11691):

    1. nothing but a letter: "B", "(b)", "**B**."
    2. nothing but an option's text: "blue"
    3. a letter and a separator in front: "B. blue", "(B) blue"
    4. a letter behind a word that announces it, the last such: "The answer is B", "答案是B", "故选B"
    5. one letter alone anywhere: "It must be B, the blue one"
    6. one option's text anywhere: "I see a blue circle"
    """
    letters = set(options) or set(LETTERS)
    answer = unicodedata.normalize("NFKC", answer).strip()
    if (match := _WRAPPED.fullmatch(answer)) and match[1].upper() in letters:
        return match[1].upper()
    if letter := _only(key for key, text in options.items() if _fold(text) == _fold(answer)):
        return letter
    if (match := _LEADING.match(answer)) and match[1] in letters:
        return match[1]
    if marked := [letter for letter in _MARKED.findall(answer) if letter in letters]:
        return str(marked[-1])
    alone = _only(letter for letter in _ALONE.findall(answer) if letter in letters)
    if alone and not (alone == "A" and len(answer.split()) > LONG_ANSWER):
        return alone
    return _only(key for key, text in options.items() if _occurs(_fold(text), _fold(answer)))


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(".。 ")


def _occurs(text: str, answer: str) -> bool:
    """As whole words, where the text begins or ends with Latin letters or digits."""
    return re.search(rf"(?<![a-z0-9]){re.escape(text)}(?![a-z0-9])", answer) is not None


def _only(found: Iterable[str]) -> str | None:
    """The one distinct letter, or None."""
    distinct = set(found)
    return distinct.pop() if len(distinct) == 1 else None
