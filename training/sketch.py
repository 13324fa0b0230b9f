"""Pictures and recordings told in words, for a decoder that learns to read before an encoder sees or hears.

A sketch says for each embed of a medium which tokens it stands for; the model is given the sum of their
embeddings there. The encoders then learn to give what the sketches gave (`token_head`).
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS, ROWS = 16, 4
"""The places of a slice that its embeds tell of, in order down each column. To print they are frames from left to
right: it is read so, whatever its height, size or slope."""

Words = tuple[str, ...]
"""A token each; none where there is nothing."""


@dataclass(frozen=True)
class PictureSketch:
    """What stands at each place of each slice. `grid` is (columns, rows) of the slices after the overview, or None."""

    slices: list[list[Words]]
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class SpeechSketch:
    """What each embed between a span's begin and end says."""

    embeds: list[Words]


def place_of(x: float, y: float) -> int:
    """The place of a point, in sides of the picture from its top left."""
    return part_of_side(x, COLUMNS) * ROWS + part_of_side(y, ROWS)


def part_of_side(x: float, parts: int) -> int:
    """Which of so many equal parts of a side x falls into, the nearest if it is outside."""
    return min(max(int(x * parts), 0), parts - 1)
