"""Which option of a multiple-choice question an answer names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

LETTERS = "ABCDEFGH"
"""Where a question doesn't say what its options are."""

LONG_ANSWER = 5  # words; from here on a lone "A" is likely the article

_LETTER = r"(?:[A-HJ-Z]|I(?!\s+[a-z]|['’]))(?![A-Za-z])"
"""An "I" before a word is likely the pronoun."""

_WRAPPED = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_LEADING = re.compile(r"[\W_]*([A-Z])\s*[.):,、]")
_BETWEEN = rf"""(?:\s|[:*_("'「“]|(?i:\b(?:is|option|choice)\b)|选项|为|是|应|选)*({_LETTER})"""
_ANSWER = re.compile(rf"(?:(?i:\banswer|\b(?:correct|right|best)\s+(?:option|choice))|答案|选(?!项)择?){_BETWEEN}")
_OPTION = re.compile(rf"(?:(?i:\b(?:option|choice))|选项){_BETWEEN}")
_ALONE = re.compile(rf"(?<![A-Za-z]){_LETTER}(?!')")
_SENTENCE_BEGINS = re.compile(r"(?:^|[.!?:\n])[^\w.!?]*$")
_AFTER_ARTICLE = re.compile(
    r"\s+(?!(?:and|or|nor|is|was|as|because|since|seems?|looks?|fits?|match(?:es)?|would|could|must|may|might|but|here)\b)"
    "[a-z]"
)
_LISTED = re.compile(rf"(?<![A-Za-z])(?:(?!A){_LETTER}(?!')|A(?=\s*(?:[.):,、;]|$)))")

_DENIED = re.compile(r"(?:(?i:\bnot\b|n['’]t\b|\bnever\b)(?:(?!\bbut\b)[^.,;:])*|(?:不是|不选|不应|并非|而非)\W*)$")
"""What stands before a letter that isn't meant; a clause further it may be."""
_REFUTED = re.compile(r"[\W_]*(?:(?i:is|are)\s+(?i:wrong|incorrect|false|not)|(?i:isn['’]t|aren['’]t)|错|不对|不正确)")
_JOINED = re.compile(rf"[\s*_)\"'」”]*(?:,|、|;|/|&|和|或|(?i:\bor\b|\band\b))[\s*_(\"'「“]*({_LETTER})(?!\s+[a-z])")
"""Another letter in the same breath."""


def chosen(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter that `answer` settles on, or None where it names none or several.

    `options` maps letters to their texts; empty: A to H, whose texts are unknown. The order of the
    attempts follows VLMEvalKit's `can_infer` (option letters first, texts last, an ambiguous answer
    is no answer; Duan et al. 2024, https://arxiv.org/abs/2407.11691):

    1. nothing but a letter: "B", "(b)", "**B**."
    2. nothing but an option's text: "blue"
    3. a letter and a separator in front, and no other letter behind it: "B. blue", "(B) blue", "B. A blue one"
    4. a letter behind a word that announces it, the last such: "The answer is B", "答案是B", "故选B"; none where
       another joins it
    5. a first line that is a letter, and no other such line: "**B**\\nA is red"
    6. one letter that is called an option, and no other: "Option A is what I see"
    7. one letter alone anywhere, no article: "It must be B, the blue one"
    8. one option's text anywhere: "A blue circle"

    In 4, 6 and 7 a letter that is denied doesn't count: "not A", "A is wrong", "不是A".
    """
    letters = set(options) or set(LETTERS)
    answer = unicodedata.normalize("NFKC", answer).strip()
    if (match := _WRAPPED.fullmatch(answer)) and match[1].upper() in letters:
        return match[1].upper()
    if letter := _only(key for key, text in options.items() if _fold(text) == _fold(answer)):
        return letter
    if (
        (match := _LEADING.match(answer))
        and match[1] in letters
        and not _others(answer[match.end() :], letters - {match[1]})
    ):
        return match[1]
    if announced := [found for found in _ANSWER.finditer(answer) if found[1] in letters and _meant(answer, found)]:
        last = announced[-1]
        joined = _JOINED.match(answer, last.end())
        return None if joined and joined[1] in letters - {last[1]} else last[1]
    lines = [(match := _WRAPPED.fullmatch(line)) and match[1].upper() for line in answer.split("\n")]
    if lines[0] in letters and not any(lines[1:]):
        return lines[0]
    named = _only(found[1] for found in _OPTION.finditer(answer) if found[1] in letters and _meant(answer, found))
    if named and not _others(answer, letters - {named}):
        return named
    found = [match for match in _ALONE.finditer(answer) if match[0] in letters and not _is_article(answer, match)]
    alone = _only(match[0] for match in found)
    if alone and not all(_meant(answer, match) for match in found):
        return None
    if alone and not (alone == "A" and len(answer.split()) > LONG_ANSWER):
        return alone
    return _only(key for key, text in options.items() if _occurs(_fold(text), _fold(answer)))


def _is_article(answer: str, letter: re.Match[str]) -> bool:
    """An "A" that begins a sentence, before a word that is no verb or conjunction."""
    begins = letter[0] == "A" and _SENTENCE_BEGINS.search(answer[: letter.start()])
    return bool(begins and _AFTER_ARTICLE.match(answer, letter.end()))


def _meant(answer: str, letter: re.Match[str]) -> bool:
    """Neither denied before it nor behind it."""
    return not (_DENIED.search(answer[: letter.start(letter.re.groups)]) or _REFUTED.match(answer, letter.end()))


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(".。 ")


def _others(answer: str, letters: set[str]) -> set[str]:
    """Which of these stand alone; an "A" only where it can't be the article."""
    return letters.intersection(_LISTED.findall(answer))


def _occurs(text: str, answer: str) -> bool:
    """As whole words and numbers, where the text begins or ends with Latin letters or digits."""
    return re.search(rf"(?<![a-z0-9])(?<!\d[.,]){re.escape(text)}(?![a-z0-9])(?![.,]\d)", answer) is not None


def _only(found: Iterable[str]) -> str | None:
    """The one distinct letter, or None."""
    distinct = set(found)
    return distinct.pop() if len(distinct) == 1 else None
