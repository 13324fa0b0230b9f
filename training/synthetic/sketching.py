"""Sketches of scenes, print, pages and speech."""

from __future__ import annotations

import random

from ..sketch import COLUMNS, ROWS, PictureSketch, SpeechSketch, Words, part_of_side, place_of
from .example import Language, Split
from .scene import Scene
from .words import normalise

LEVELS = tuple(chr(code) for code in (*range(1, 9), *range(14, 18)))
"""Tokens (bytes that no text has) for how far down the centre of a thing stands, in twelfths of the picture."""

SECONDS_A_WORD = {"en": (0.2, 0.5), "zh": (0.14, 0.3)}  # of a Chinese character
SECONDS_AN_EMBED = 0.04
PAUSE = (0.05, 0.3)  # before and after
TWICE = 0.25  # how often what stands at a place stands at the next, too


def thing_words(scene: Scene) -> dict[int, Words]:
    """At each thing's centre, in the upper or the lower half of a column: its shape and level, then its colour."""
    found: dict[int, Words] = {}
    for thing in sorted(scene.things, key=lambda thing: thing.centre):
        x, y = (centre / side for centre, side in zip(thing.centre, scene.size, strict=True))
        place = place_of(x, y) // 2 * 2
        while place in found:
            place = (place + 2) % (COLUMNS * ROWS)
        found[place] = (thing.shape, LEVELS[part_of_side(y, len(LEVELS))])
        found[place + 1] = (thing.colour,)
    return found


def sketch_scene(scene: Scene) -> PictureSketch:
    return PictureSketch([_slice(thing_words(scene))])


def sketch_text(rng: random.Random, text: str, language: Language, split: Split) -> PictureSketch:
    return PictureSketch([_line(rng, text)])


def sketch_page(rng: random.Random, cells: list[list[str]]) -> PictureSketch:
    """A cell a slice; the overview is too small to be read."""
    slices = [_line(rng, text) for row in cells for text in row]
    return PictureSketch([_slice({}), *slices], (len(cells[0]), len(cells)))


def sketch_speech(rng: random.Random, text: str, language: Language, split: Split) -> SpeechSketch:
    """Each word or character once or twice within its time."""
    normal = normalise(text, language)
    pace = rng.uniform(0.8, 1.25)
    embeds: list[Words] = _silence(rng)
    for unit in normal.split() if language == "en" else normal:
        length = max(round(rng.uniform(*SECONDS_A_WORD[language]) * pace / SECONDS_AN_EMBED), 2)
        at = rng.randrange(length - 1)
        said = [(unit,) if i == at or (i == at + 1 and rng.random() < TWICE) else () for i in range(length)]
        embeds += said
    return SpeechSketch(embeds + _silence(rng))


def _silence(rng: random.Random) -> list[Words]:
    return [()] * round(rng.uniform(*PAUSE) / SECONDS_AN_EMBED)


def _slice(words: dict[int, Words]) -> list[Words]:
    return [words.get(place, ()) for place in range(COLUMNS * ROWS)]


def _line(rng: random.Random, text: str) -> list[Words]:
    """One line of print, its letters at least half a column apart."""
    pitch = rng.uniform(0.6, max(min(COLUMNS / len(text), 3.0), 0.7))
    start = rng.uniform(0, max(COLUMNS - pitch * len(text), 0))
    row, slope = rng.uniform(0, ROWS), rng.uniform(-0.07, 0.07)
    words: dict[int, Words] = {}
    least = 0
    for number, letter in enumerate(text):
        x = start + (number + 0.5) * pitch
        place = max(place_of(x / COLUMNS, (row + slope * (x - COLUMNS / 2)) / ROWS), least)
        place = min(place, COLUMNS * ROWS - (len(text) - number) * 2)
        words[place] = (letter,)
        if rng.random() < TWICE and pitch > 1:
            words[place + 1] = (letter,)
            place += 1
        least = place + 2  # a gap, lest two equal letters be taken for one
    return _slice(words)
