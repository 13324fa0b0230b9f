"""Pictures of one line of text, and the "text" examples made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from .example import Example, Language, Split, assistant, user
from .fonts import Font, fonts, load
from .scene import COLOURS, SLICE, Background, Colour, jittered, random_background, random_size, shade
from .vocabulary import CASELESS, CHARACTERS_ZH, CODE_CHARACTERS, WORDS_EN, words
from .words import CTC_UNITS

NARROWEST_LATIN, NARROWEST_ZH = 16, 26  # pixels of a slice that a character is wide on average
LARGEST = 80  # pixels per em

Span = tuple[float, float]
"""Left and right."""

QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        *("What does it say?", "Read the text.", "What is written here?", "What does the text say?", "Read this."),
        *("What is printed here?", "What text is this?"),
    ),
    "zh": ("上面写着什么？", "请读出文字。", "图上的文字是什么？", "图里写了什么？", "读一下这些字。"),
}

DARK_INKS = ("red", "green", "blue", "purple", "brown", "black", "black")
LIGHT_INKS = ("yellow", "orange", "white", "white")


def lettering_example(
    rng: random.Random,
    language: Language,
    split: Split,
    printed: Callable[..., Any] | None = None,
    text_of: Callable[..., str] | None = None,
) -> Example:
    """`printed` draws instead of `print_text`, `text_of` chooses instead of `random_text`, from the same arguments."""
    text = (text_of or random_text)(rng, language, split, max_length=8 if language == "en" else 6)
    picture = (printed or print_text)(rng, text, language, split)
    question = rng.choice(QUESTIONS[language])
    return Example("text", language, [user(question, image=picture), assistant(text)])


def random_text(rng: random.Random, language: Language, split: Split, max_length: int) -> str:
    """A code, a number or a word; for zh mostly 1 or more Chinese characters, sometimes a number."""
    kind = rng.random()
    if language == "zh" and kind < 0.85:
        return "".join(rng.choices(CHARACTERS_ZH, k=rng.randint(1, max_length)))
    if language == "zh" or kind < 0.2:
        return random_number(rng, rng.randint(1, max_length))
    if kind < 0.5:
        return random_code(rng, rng.randint(1, max_length))
    shown: Split = "test" if split == "test" and rng.random() < 0.5 else "train"
    return cased(rng, rng.choice(words(shown, max_length)), split)


def random_number(rng: random.Random, digits: int) -> str:
    return str(rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def random_code(rng: random.Random, length: int, characters: Sequence[str] = CODE_CHARACTERS) -> str:
    """Characters that spell no word, lest one be held out."""
    while (code := "".join(rng.choices(characters, k=length))).lower() in WORDS_EN:
        pass
    return code


def cased(rng: random.Random, word: str, split: Split) -> str:
    """The word in lower case, Capitalised or in UPPER case, where these can be told apart.

    In training a word that is a token of its own in lower case is not printed so: letters are to be read.
    """
    if CASELESS.issuperset(word):
        return word.upper()
    forms = (word, word.capitalize(), word.upper())
    return rng.choice(forms[1:] if split == "train" and word in CTC_UNITS else forms)


def print_text(rng: random.Random, text: str, language: Language, split: Split) -> Image.Image:
    """The text somewhere on a plain picture, in a size that stays readable in one slice."""
    return print_line(rng, text, language, split)[0]


def print_line(rng: random.Random, text: str, language: Language, split: Split) -> tuple[Image.Image, list[Span]]:
    """`print_text`, and where each letter stands, in widths of the picture."""
    font = rng.choice(fonts(language, split))
    em = advance(font, text)
    width, height = random_size(rng, widest=1.6 if rng.random() < 0.8 else 2.0)
    scale = math.sqrt(width * height) / SLICE
    least = smallest_size(text, em)
    most = min(0.9 * width / scale / (em * len(text)), 0.55 * height / scale, LARGEST)
    size = least * (max(most, least) / least) ** rng.random()  # log-uniform
    tilt = rng.uniform(-4, 4) if rng.random() < 0.6 else 0.0
    mask, spans = line_mask(text, font, round(size * scale), tilt)
    while mask.width > width - 4 or mask.height > height - 4:
        size *= 0.95
        mask, spans = line_mask(text, font, round(size * scale), tilt)

    background = random_background(rng, dark=rng.random() < 0.2)
    picture = Image.new("RGB", (width, height), background.colour)
    place = (rng.randint(2, width - mask.width - 2), rng.randint(2, height - mask.height - 2))
    picture.paste(random_ink(rng, background)[1], (*place, place[0] + mask.width, place[1] + mask.height), mask)
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    spans = [((place[0] + left) / width, (place[0] + right) / width) for left, right in spans]
    return shade(picture, background if size > 1.2 * least else replace(background, noise=0.0)), spans


def advance(font: Font, text: str) -> float:
    """The mean width of the text's characters, in em."""
    return max(load(font, 100).getlength(text) / 100 / len(text), 0.4)


def smallest_size(text: str, em: float) -> float:
    """Pixels per em, in a slice, at which characters of `em` mean width can still be read."""
    return (NARROWEST_LATIN if text.isascii() else NARROWEST_ZH) / em


def line_mask(text: str, font: Font, size: int, tilt: float = 0.0) -> tuple[Image.Image, list[Span]]:
    """How much of each pixel the text covers (mode L), cut to its ink; and where each letter stands, with the room
    beside its ink, in pixels from the left, in a tilted line along its middle."""
    face, margin = load(font, size), 4
    left, top, right, bottom = (round(side) for side in face.getbbox(text))
    mask = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(mask).text((margin - left, margin - top), text, fill=255, font=face)
    pens = [margin - left + face.getlength(text[: i + 1]) - face.getlength(text[i]) for i in range(len(text))]
    boxes = [face.getbbox(letter) for letter in text]
    spans = [(pen + box[0], pen + box[2]) for pen, box in zip(pens, boxes, strict=True)]
    if tilt:
        middle, shrink = mask.width / 2, math.cos(math.radians(tilt))
        mask = mask.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
        spans = [((a - middle) * shrink + mask.width / 2, (b - middle) * shrink + mask.width / 2) for a, b in spans]
    ink = mask.getbbox() or (0, 0, *mask.size)
    return mask.crop(ink), [(a - ink[0], b - ink[0]) for a, b in spans]


def random_ink(rng: random.Random, background: Background) -> tuple[str, Colour]:
    """A colour that stands out from the background, and its name; "white" or "grey" are no COLOURS."""
    if sum(background.colour) < 3 * 128:
        name = rng.choice(LIGHT_INKS)
        return name, jittered(rng, name) if name in COLOURS else (rng.randint(225, 255),) * 3
    if rng.random() < 0.2:
        return "grey", (rng.randint(45, 90),) * 3
    name = rng.choice(DARK_INKS)
    return name, jittered(rng, name)
