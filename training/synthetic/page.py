"""Pages ruled into cells that each become one slice, and the "page" examples made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from pipeline.config import ImageProcessorConfig
from pipeline.processing.image import grid_for

from .example import Example, Language, Split, turns
from .fonts import Font, fonts
from .lettering import Span, advance, line_mask, random_ink, random_text, smallest_size
from .scene import SLICE, Size, random_background, shade

CONFIG = ImageProcessorConfig(max_slice_nums=9, scale_resolution=SLICE)

GRIDS = ((2, 2), (1, 2), (2, 1), (2, 3), (3, 2), (1, 3), (3, 1), (2, 4), (4, 2), (3, 3))
"""(rows, columns)."""

QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is written in row {row}, column {column}?",
        "Read the text in row {row}, column {column}.",
        "What does row {row}, column {column} say?",
    ),
    "zh": (
        "第{row}行第{column}列写着什么？",
        "请读出第{row}行第{column}列的文字。",
        "第{row}行第{column}列的文字是什么？",
    ),
}


@dataclass(frozen=True)
class Page:
    picture: Any
    cells: list[list[str]]  # [rows][columns]
    spans: list[list[list[Span]]]  # of each cell's letters, in widths of the cell


def page_example(
    rng: random.Random, language: Language, split: Split, sketched: Callable[..., Any] | None = None
) -> Example:
    """A page with 3 to 5 turns about different cells (all of them if there are fewer); in a test with one.

    `sketched` makes a picture of cells that are not drawn.
    """
    if sketched:
        cells = random_cells(rng, language, split, *rng.choice(GRIDS))
        page = Page(sketched(rng, cells), cells, [])
    else:
        page = random_page(rng, language, split)
    places = [(r, c) for r, row in enumerate(page.cells) for c in range(len(row))]
    count = 1 if split == "test" else min(rng.randint(3, 5), len(places))
    pairs = [
        (rng.choice(QUESTIONS[language]).format(row=row + 1, column=column + 1), page.cells[row][column])
        for row, column in rng.sample(places, count)
    ]
    return Example("page", language, turns(pairs, image=page.picture))


def random_page(rng: random.Random, language: Language, split: Split) -> Page:
    rows, columns = rng.choice(GRIDS)
    width, height = _size(rng, rows, columns)
    background = random_background(rng)
    picture = Image.new("RGB", (width, height), background.colour)
    _rule(rng, picture, rows, columns)
    _, ink = random_ink(rng, background)
    font = rng.choice(fonts(language, split))
    cells = random_cells(rng, language, split, rows, columns)
    spans: list[list[list[Span]]] = [[] for _ in cells]
    wide, high = width / columns, height / rows
    for row, texts in enumerate(cells):
        for column, text in enumerate(texts):
            mask, places = line_mask(text, font, _fitting(rng, text, font, (width // columns, height // rows)))
            left, top = _slack(rng, wide - mask.width), _slack(rng, high - mask.height)
            picture.paste(ink, (round(column * width / columns + left), round(row * height / rows + top)), mask)
            spans[row].append([((left + a) / wide, (left + b) / wide) for a, b in places])
    return Page(shade(picture, background), cells, spans)


def random_cells(rng: random.Random, language: Language, split: Split, rows: int, columns: int) -> list[list[str]]:
    return [[random_text(rng, language, split, max_length=4) for _ in range(columns)] for _ in range(rows)]


def grid_of(size: Size) -> tuple[int, int] | None:
    """(rows, columns) that slice_image cuts a picture of this size into."""
    grid = grid_for(*size, CONFIG)
    return grid and (grid[1], grid[0])


def _size(rng: random.Random, rows: int, columns: int) -> Size:
    """A page of this grid, with cells of 200 to 300 pixels a side."""
    while True:
        size = rng.randint(200, 300) * columns, rng.randint(200, 300) * rows
        if grid_of(size) == (rows, columns):
            return size


def _rule(rng: random.Random, picture: Image.Image, rows: int, columns: int) -> None:
    draw, thickness = ImageDraw.Draw(picture), rng.randint(1, 3)
    grey = (rng.randint(60, 160),) * 3
    for column in range(1, columns):
        x = picture.width * column // columns
        draw.line((x, 0, x, picture.height), grey, thickness)
    for row in range(1, rows):
        y = picture.height * row // rows
        draw.line((0, y, picture.width, y), grey, thickness)


def _fitting(rng: random.Random, text: str, font: Font, cell: Size) -> int:
    """A readable size that leaves a margin in its cell."""
    scale = math.sqrt(cell[0] * cell[1]) / SLICE
    em = advance(font, text)
    least = 1.2 * smallest_size(text, em) * scale
    most = min(0.8 * cell[0] / (em * len(text)), 0.5 * cell[1])
    return round(rng.uniform(min(least, most), most))


def _slack(rng: random.Random, room: float) -> float:
    """Where in the room that a text leaves it begins: anywhere but at the ends."""
    return room * rng.uniform(0.15, 0.85)
