"""Printed lines stay inside their picture, readable, and keep held-out words for the test."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest

from training.synthetic.example import Language, Split
from training.synthetic.fonts import fonts, load
from training.synthetic.lettering import (
    LARGEST,
    advance,
    cased,
    lettering_example,
    line_mask,
    print_line,
    print_text,
    random_text,
    smallest_size,
)
from training.synthetic.vocabulary import CHARACTERS_ZH, CODE_CHARACTERS, words

from .needs_fonts import needs_fonts


def texts(language: Language, split: Split, number: int = 1500) -> list[str]:
    rng = random.Random(0)
    return [random_text(rng, language, split, 8 if language == "en" else 6) for _ in range(number)]


def test_train_never_shows_a_held_out_word() -> None:
    shown = {text.lower() for text in texts("en", "train", 5000)}
    assert not shown & set(words("test"))
    assert len(shown & set(words("train"))) > 300


def test_half_of_the_words_of_the_test_are_held_out() -> None:
    shown = [text.lower() for text in texts("en", "test")]
    held_out, known = (sum(text in set(words(split)) for text in shown) for split in ("test", "train"))
    assert 0.4 < held_out / (held_out + known) < 0.6


def test_characters() -> None:
    for text in texts("zh", "train"):
        assert 1 <= len(text) <= 6
        assert text.isdecimal() or set(text) <= set(CHARACTERS_ZH)
    for text in texts("en", "train"):
        assert 1 <= len(text) <= 8
        assert set(text) <= set(CODE_CHARACTERS) or text.isdecimal() or text.lower() in words("train")


def test_words_whose_cases_look_alike_are_in_upper_case() -> None:
    rng = random.Random(0)
    assert {cased(rng, "soup", "test") for _ in range(50)} == {"SOUP"}
    assert {cased(rng, "mad", "test") for _ in range(50)} == {"mad", "Mad", "MAD"}


def test_words_that_are_tokens_are_trained_letter_by_letter() -> None:
    rng = random.Random(0)
    assert {cased(rng, "red", "train") for _ in range(50)} == {"Red", "RED"}
    assert {cased(rng, "red", "test") for _ in range(50)} == {"red", "Red", "RED"}


@needs_fonts
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_examples(language: Language, split: Split) -> None:
    rng = random.Random(1)
    for _ in range(30):
        example = lettering_example(rng, language, split)
        question, answer = (turn["content"] for turn in example.conversations)
        width, height = question["image"].size
        assert width * height >= 148**2
        assert 0.6 < width / height < 2.1
        assert answer["text"]
        pixels = np.asarray(question["image"].convert("L")).astype(int)
        assert np.ptp(pixels) > 60  # ink that stands out


@needs_fonts
@pytest.mark.parametrize("text", ["WWWWWWWW", "illill", "K7QX42", "国国国国国国", "一"])
def test_characters_are_wide_enough(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that print_text asks for, brought to a slice's size."""
    language: Language = "en" if text.isascii() else "zh"
    sizes = []
    monkeypatch.setattr(
        "training.synthetic.lettering.line_mask",
        lambda text, font, size, tilt: (sizes.append((font, size)), line_mask(text, font, size, tilt))[1],
    )
    for seed in range(40):
        picture = print_text(random.Random(seed), text, language, "train")
        font, size = sizes[-1]
        pixels = size * 224 / math.sqrt(picture.width * picture.height)
        assert 0.9 * smallest_size(text, advance(font, text)) < pixels < LARGEST + 1


@needs_fonts
def test_a_line_is_cut_to_its_ink() -> None:
    font = fonts("en", "train")[0]
    mask = np.asarray(line_mask("Hxg", font, 40, 3.0)[0])
    assert all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    assert abs(mask.shape[1] - load(font, 40).getlength("Hxg")) < 8


@needs_fonts
def test_the_seed_decides() -> None:
    first, again, other = (lettering_example(random.Random(seed), "zh", "train").conversations for seed in (3, 3, 4))
    assert first[1] == again[1] != other[1]
    assert first[0]["content"]["image"].tobytes() == again[0]["content"]["image"].tobytes()


@needs_fonts
@pytest.mark.parametrize("tilt", [0.0, 4.0, -4.0])
def test_letters_are_where_their_ink_is(tilt: float) -> None:
    """Between two letters there is less ink than anywhere in them."""
    font = fonts("en", "train")[0]
    mask, spans = line_mask("H0O7E", font, 40, tilt)
    whole = np.asarray(mask).astype(int)
    assert abs(spans[0][0]) < 4
    assert abs(spans[-1][1] - whole.shape[1]) < 4
    ink = whole.sum(0)
    for (_, end), (start, _) in pairwise(spans):
        assert ink[round((end + start) / 2)] < ink.max() / 10
    for start, end in spans:
        assert ink[max(round(start), 0) : round(end)].max() > ink.max() / 3


@needs_fonts
def test_the_places_of_a_printed_line_are_the_pictures() -> None:
    """Ink starts and ends where the letters do, but for the room beside it."""
    for seed in range(30):
        picture, spans = print_line(random.Random(seed), "K7QX42", "en", "train")
        pixels = np.asarray(picture.convert("L")).astype(int)
        inked = (np.abs(pixels - np.median(pixels)) > 60).any(0).nonzero()[0]
        assert abs(spans[0][0] * picture.width - inked[0]) < 0.04 * picture.width
        assert abs(spans[-1][1] * picture.width - inked[-1]) < 0.04 * picture.width
