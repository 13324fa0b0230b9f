"""What each place of a picture's embeds is wanted to tell, as classes for the heads of `vision_words`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from .model import IGNORED
from .sketch import COLUMNS, ROWS, Words, part_of_side
from .synthetic.dense import COLOURS, WHAT
from .synthetic.lettering import Span
from .synthetic.sketching import ACROSS, DOWN, FRAMES, frames_of_letters

UNITS = {"what": WHAT[1:], "colour": COLOURS[1:], "down": DOWN, "across": ACROSS}
"""What the heads on embeds tell; nothing is the first class of each."""

PLACED = {word: (head, label) for head, words in UNITS.items() for label, word in enumerate(words, start=1)}
"""The head and the class of each word."""

Told = tuple[dict[int, Words], str, list[Span]]
"""What the places of a scene tell; or a line of print and where its letters stand, in widths of the picture."""


def place_labels(told: Sequence[Told]) -> dict[str, torch.Tensor]:
    """Of each head the class at every place, int64 [pictures, places]. All but `what` are asked only where they have
    a word."""
    labels = {name: np.full((len(told), COLUMNS * ROWS), IGNORED) for name in UNITS}
    for number, (scene, line, spans) in enumerate(told):
        if line:
            labels["what"][number] = line_labels(line, spans)
            continue
        labels["what"][number] = 0
        for place, words in scene.items():
            for word in words:
                name, label = PLACED[word]
                labels[name][number, place] = label
    return {name: torch.from_numpy(each) for name, each in labels.items()}


def line_labels(text: str, spans: list[Span]) -> np.ndarray:
    """int64 [frames]: each letter at its centre, nothing beside the line and halfway between two letters. What the
    others tell doesn't matter to who reads on from letter to letter."""
    labels = np.zeros(FRAMES, dtype=np.int64)
    centres = frames_of_letters(text, [(left + right) / 2 for left, right in spans])
    first, last = (part_of_side(x, FRAMES) for x in (spans[0][0], spans[-1][1]))
    labels[min(first, centres[0]) : max(last, centres[-1]) + 1] = IGNORED
    for before, after in pairwise(centres):
        if after - before > 1:
            labels[(before + after) // 2] = 0
    labels[centres] = letters(text)
    return labels


def letters(text: str) -> list[int]:
    """Their classes of `what`."""
    return [WHAT.index(letter) for letter in text]
