"""Several lines of print to be read from top to bottom: training that teaches reading by the dozen.

It is no task of the held-out set; one line alone (`lettering`) is.
"""

from __future__ import annotations

import random

from PIL import Image

from .example import Example, Language, Split, assistant, user
from .fonts import fonts
from .lettering import line_mask, random_ink, random_text
from .scene import random_background, random_size, shade

QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("Read all lines.", "Read every line.", "What do the lines say?"),
    "zh": ("请读出每一行。", "每一行写着什么？", "请读出所有文字。"),
}
MOST_LINES = 6
SMALLEST, LARGEST = 0.085, 0.2  # of the root of the picture's area, in em


def reading_example(rng: random.Random, language: Language, split: Split) -> Example:
    """A picture with up to 6 lines; the answer has them, a line each."""
    picture, lines = random_lines(rng, language, split)
    return Example(
        "reading", language, [user(rng.choice(QUESTIONS[language]), image=picture), assistant("\n".join(lines))]
    )


def random_lines(rng: random.Random, language: Language, split: Split) -> tuple[Image.Image, list[str]]:
    width, height = random_size(rng)
    background = random_background(rng, dark=rng.random() < 0.15)
    picture = Image.new("RGB", (width, height), background.colour)
    font, ink = rng.choice(fonts(language, split)), random_ink(rng, background)
    root = (width * height) ** 0.5
    size = round(root * rng.uniform(SMALLEST, LARGEST))
    gap = rng.uniform(1.15, 1.9) * size
    top, lines = rng.uniform(0.2, 1.0) * size, list[str]()
    while len(lines) < MOST_LINES and top + 1.2 * size < height:
        text = random_text(rng, language, split, 8)
        mask = line_mask(text, font, size)
        if mask.width > width - 6:
            if lines or size < root * SMALLEST:
                continue
            size = round(size * 0.9)
            continue
        left = rng.randint(3, min(width - mask.width - 3, 3 + size))
        if top + mask.height > height - 2:
            break
        picture.paste(ink[1], (left, round(top), left + mask.width, round(top) + mask.height), mask)
        lines.append(text)
        top += gap
    if not lines:
        return random_lines(rng, language, split)
    return shade(picture, background), lines
