"""The cells of a page are its slices."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from pipeline.processing.image import slice_image
from training.synthetic import page as module
from training.synthetic.example import Language, Split
from training.synthetic.page import CONFIG, GRIDS, grid_of, page_example, random_page

from .needs_fonts import needs_fonts

pytestmark = needs_fonts


@pytest.mark.parametrize("seed", range(20))
def test_the_page_is_cut_along_its_lines(seed: int) -> None:
    page = random_page(random.Random(seed), "en", "train")
    rows, columns = len(page.cells), len(page.cells[0])
    assert (rows, columns) in GRIDS
    assert slice_image(page.picture, CONFIG).grid == (columns, rows)
    assert 200 <= page.picture.width / columns <= 300
    assert 200 <= page.picture.height / rows <= 300


@pytest.mark.parametrize("seed", range(8))
def test_each_slice_holds_the_text_of_its_cell(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one cell's text left out, its slice, and no other, loses its ink."""
    whole = random_page(random.Random(seed), "en", "train")
    row, column = random.Random(seed).randrange(len(whole.cells)), 0
    place = row * len(whole.cells[0]) + column
    line_mask, calls = module.line_mask, []

    def without_one(*arguments: object) -> object:
        calls.append(arguments)
        mask, spans = line_mask(*arguments)  # type: ignore[arg-type]
        return mask.point(lambda _: 0) if len(calls) == place + 1 else mask, spans

    monkeypatch.setattr(module, "line_mask", without_one)
    blanked = random_page(random.Random(seed), "en", "train")
    assert calls[place][0] == whole.cells[row][column]
    slices = [slice_image(page.picture, CONFIG).slices[1:] for page in (whole, blanked)]
    changed = [bool(np.any(np.asarray(a) != np.asarray(b))) for a, b in zip(*slices, strict=True)]
    assert changed == [number == place for number in range(len(changed))]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_ask_different_cells(language: Language, split: Split) -> None:
    for seed in range(8):
        cells = random_page(random.Random(seed), language, split).cells
        turns = page_example(random.Random(seed), language, split).conversations
        asked = []
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            row, column = (int(number) for number in re.findall(r"\d", question["content"]["text"]))
            assert answer["content"]["text"] == cells[row - 1][column - 1]
            asked.append((row, column))
        assert len(set(asked)) == len(asked)
        assert len(asked) == 1 if split == "test" else 2 <= len(asked) <= 5


def test_grids() -> None:
    assert grid_of((224, 224)) is None
    assert grid_of((448, 448)) == (2, 2)
    assert grid_of((672, 448)) == (2, 3)
