"""Sketches of scenes, print, pages and speech."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..sketch import COLUMNS, ROWS, PictureSketch, SpeechSketch, Words, part_of_side, place_of
from .example import Language, Split
from .scene import Scene
from .words import normalise

DOWN = tuple(chr(code) for code in (*range(1, 9), *range(14, 18)))
ACROSS = tuple(chr(code) for code in range(18, 30))
"""Tokens (bytes that no text has) for how far down and across a thing's centre stands, in twelfths of the picture."""

SECONDS_A_WORD = {"en": (0.2, 0.5), "zh": (0.14, 0.3)}  # of a Chinese character
SECONDS_AN_EMBED = 0.04
PAUSE = (0.05, 0.3)  # before and after
LONGEST = 3  # embeds that a word or a letter may be told in
FRAMES = COLUMNS * ROWS


def thing_words(scene: Scene) -> dict[int, Words]:
    """At each thing's centre, in the upper or the lower half of a column, two places tell its shape and colour; the
    first how far down it stands, the second how far across."""
    found: dict[int, Words] = {}
    for thing in sorted(scene.things, key=lambda thing: thing.centre):
        x, y = (centre / side for centre, side in zip(thing.centre, scene.size, strict=True))
        place = place_of(x, y) // 2 * 2
        while place in found:
            place = (place + 2) % (COLUMNS * ROWS)
        found[place] = (thing.shape, thing.colour, DOWN[part_of_side(y, len(DOWN))])
        found[place + 1] = (thing.shape, thing.colour, ACROSS[part_of_side(x, len(ACROSS))])
    return found


def frames_of_letters(text: str, centres: Sequence[float]) -> list[int]:
    """Print is read as speech is, over time: of FRAMES from the left of a slice to its right, whatever the line's
    height, the one at each letter's centre (in widths of the slice). Each letter has one of its own, and between two
    equal letters there is another."""
    found: list[int] = []
    for number, (letter, x) in enumerate(zip(text, centres, strict=True)):
        least = found[-1] + (2 if letter == text[number - 1] else 1) if found else 0
        most = FRAMES - 1 - 2 * (len(text) - 1 - number)
        found.append(max(min(part_of_side(x, FRAMES), most), least))
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
    """Each word or character in one to three embeds within its time, and a moment of nothing after it."""
    normal = normalise(text, language)
    pace = rng.uniform(0.8, 1.25)
    embeds: list[Words] = _silence(rng)
    for unit in normal.split() if language == "en" else normal:
        length = max(round(rng.uniform(*SECONDS_A_WORD[language]) * pace / SECONDS_AN_EMBED), 2)
        heard = rng.randint(1, min(LONGEST, length - 1))
        before = rng.randrange(length - heard)
        embeds += [()] * before + [(unit,)] * heard + [()] * (length - heard - before)
    return SpeechSketch(embeds + _silence(rng))


def _silence(rng: random.Random) -> list[Words]:
    return [()] * round(rng.uniform(*PAUSE) / SECONDS_AN_EMBED)


def _slice(words: dict[int, Words]) -> list[Words]:
    return [words.get(place, ()) for place in range(COLUMNS * ROWS)]


def _line(rng: random.Random, text: str) -> list[Words]:
    """One line of print: each letter in one to five frames, and between two letters where there is room nothing."""
    pitch = rng.uniform(2.4, max(min(FRAMES / len(text), 12.0), 2.8))
    start = rng.uniform(0, max(FRAMES - pitch * len(text), 0))
    frames = frames_of_letters(text, [(start + (i + rng.uniform(0.4, 0.6)) * pitch) / FRAMES for i in range(len(text))])
    words: dict[int, Words] = {}
    befores, afters = [-1, *frames[:-1]], [*frames[1:], FRAMES + 1]
    for letter, frame, before, after in zip(text, frames, befores, afters, strict=True):
        first, last = frame - rng.randrange(LONGEST), frame + rng.randrange(LONGEST)
        for place in range(max(first, (before + frame) // 2 + 1), min(last, (frame + after) // 2 - 1, FRAMES - 1) + 1):
            words[place] = (letter,)
        words[frame] = (letter,)
    return _slice(words)
