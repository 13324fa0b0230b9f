"""What an answer is worth: pure functions of the answer and the accepted references.

A score is points out of a total, so that a group's score is a ratio of sums: correct answers of
questions, or edits of the references' length. References are never empty.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper_normalizer.english import EnglishSpellingNormalizer

from .choice import chosen

ANLS_THRESHOLD = 0.5
_DECIMAL = re.compile(r"(?<![\d.])\d+(\.)\d+(?!\.?\d)")


@dataclass(frozen=True)
class Score:
    """`points` out of `out_of`: at most 1 of 1 question, or edits of a reference's words or characters."""

    points: float
    out_of: float


@dataclass(frozen=True)
class Metric:
    """`score` takes an answer, its references and the options of a multiple-choice question."""

    name: str
    score: Callable[[str, Sequence[str], Mapping[str, str]], Score]
    is_error_rate: bool = False

    def failed(self, references: Sequence[str], options: Mapping[str, str]) -> Score:
        """A request without an answer: wrong, or everything deleted."""
        if not self.is_error_rate:
            return Score(0, 1)
        nothing = self.score("", references, options)
        return Score(max(nothing.points, 1), nothing.out_of)

    def right(self, score: Score) -> bool:
        return score.points == (0 if self.is_error_rate else score.out_of)

    def reaches(self, value: float, goal: float) -> bool:
        return value <= goal if self.is_error_rate else value >= goal


def exact(answer: str, references: Sequence[str]) -> bool:
    """Equal but for surrounding space, Unicode's compatibility forms and one full stop at the end.

    Exact match as in SQuAD (Rajpurkar et al. 2016), without its lower-casing and dropped articles:
    our references are written as the answers are asked for. NFKC: Unicode Standard Annex 15.
    """
    return any(_plain(answer) == _plain(reference) for reference in references)


def contains(answer: str, references: Sequence[str]) -> bool:
    """A reference occurs in the answer, whatever the case: the rule of OCRBench (Liu et al. 2023)."""
    return any(_plain(reference).casefold() in _plain(answer).casefold() for reference in references)


def choice(answer: str, references: Sequence[str], options: Mapping[str, str]) -> bool:
    """The answer names the right option, by letter or text: VLMEvalKit's matching, see `chosen`."""
    letter = chosen(answer, options)
    return letter is not None and letter in {chosen(reference, options) for reference in references}


def anls(answer: str, references: Sequence[str]) -> float:
    """Average normalized Levenshtein similarity, of one question (Biten et al. 2019, https://arxiv.org/abs/1905.13648).

    1 - edits / length of the longer, or 0 where that distance reaches 0.5; the best of the references.
    Case and runs of spaces don't count, as in the DocVQA evaluation.
    """

    def similarity(reference: str) -> float:
        a, b = (" ".join(text.lower().split()) for text in (answer, reference))
        distance = _edits(jiwer.process_characters(b, a)).points / max(len(a), len(b), 1)
        return 1 - distance if distance < ANLS_THRESHOLD else 0.0

    return max(similarity(reference) for reference in references)


def wer(answer: str, references: Sequence[str]) -> Score:
    """Word edits of an English transcript, after Whisper's English normalizer (Radford et al. 2022, appendix C).

    The normalizer is the one in `transformers`, with the spellings that whisper-normalizer brings. Edits: jiwer.
    """
    words = english_normalizer()
    return _nearest(_edits(jiwer.process_words(words(reference), words(answer))) for reference in references)


def cer(answer: str, references: Sequence[str]) -> Score:
    """Character edits of a Chinese transcript: punctuation (but a decimal point) and spaces dropped, full width made
    half, case folded.

    Each letter and digit counts, as where Whisper's evaluation splits languages without spaces (Radford et al. 2022,
    appendix C); WeNet's compute-wer.py takes a Latin word or a number for one. Numbers are not rewritten (3 and 三
    differ), nor are traditional characters. Edits: jiwer.
    """
    answer = _characters(answer)
    return _nearest(_edits(jiwer.process_characters(_characters(reference), answer)) for reference in references)


@cache
def english_normalizer() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer  # seconds to import

    normalize: Callable[[str], str] = EnglishTextNormalizer(EnglishSpellingNormalizer().mapping)
    return normalize


def _plain(text: str) -> str:
    return re.sub(r"(?<=\S)\s*[.。]$", "", unicodedata.normalize("NFKC", text).strip())


def _characters(text: str) -> str:
    """Without spaces, punctuation and what isn't seen; a point within one number stays, those of a date don't."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    points = {found.start(1) for found in _DECIMAL.finditer(folded)}
    kept = (c for i, c in enumerate(folded) if i in points or not unicodedata.category(c).startswith(("P", "Cf")))
    return "".join("".join(kept).split())


def _edits(found: jiwer.WordOutput | jiwer.CharacterOutput) -> Score:
    edits = found.substitutions + found.deletions + found.insertions
    return Score(edits, found.hits + found.substitutions + found.deletions)


def _nearest(scores: Iterable[Score]) -> Score:
    """Of several references, the one with the fewest edits for its length."""
    return min(scores, key=lambda score: score.points / max(score.out_of, 1))


def _yes(metric: Callable[[str, Sequence[str]], float]) -> Callable[[str, Sequence[str], Mapping[str, str]], Score]:
    return lambda answer, references, _: Score(float(metric(answer, references)), 1)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("exact", _yes(exact)),
        Metric("contains", _yes(contains)),
        Metric("choice", lambda answer, references, options: Score(float(choice(answer, references, options)), 1)),
        Metric("anls", _yes(anls)),
        Metric("wer", lambda answer, references, _: wer(answer, references), is_error_rate=True),
        Metric("cer", lambda answer, references, _: cer(answer, references), is_error_rate=True),
    )
}
