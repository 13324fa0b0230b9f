"""A decoded picture's way to patches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import ImageProcessorConfig
from pipeline.processing.image import best_grid, decode_image, fit_size, patchify, slice_image
from tests.golden import DATA, META

from .pictures import LIMIT, noise

CONFIG = ImageProcessorConfig()


class TestSlices:
    @pytest.mark.parametrize("name", META["images"])
    def test_golden(self, name: str) -> None:
        wanted = META["images"][name]
        image = decode_image((DATA / wanted["path"]).read_bytes(), LIMIT)
        assert list(image.size) == wanted["size"]
        sliced = slice_image(image, CONFIG)
        assert list(sliced.grid or ()) == wanted["grid"]
        assert [list(s.size) for s in sliced.slices] == wanted["slice_sizes"]
        assert len(sliced.slices) * 64 == wanted["tokens"]
        sums = [int(np.asarray(s, dtype=np.int64).sum()) for s in sliced.slices]
        np.testing.assert_allclose(sums, wanted["pixel_sums"], rtol=1e-3)

    def test_a_small_picture_is_one_slice_enlarged(self) -> None:
        sliced = slice_image(Image.new("RGB", (100, 50)), CONFIG)
        assert sliced.grid is None
        assert [s.size for s in sliced.slices] == [(630, 322)]

    def test_cells_stand_row_by_row(self) -> None:
        # 3 columns, 2 rows of one colour each.
        colours = [(40 * i, 255 - 40 * i, 128) for i in range(6)]
        image = Image.new("RGB", (1200, 800))
        for i, colour in enumerate(colours):
            image.paste(colour, (i % 3 * 400, i // 3 * 400, i % 3 * 400 + 400, i // 3 * 400 + 400))
        sliced = slice_image(image, CONFIG)
        assert sliced.grid == (3, 2)
        for cell, colour in zip(sliced.slices[1:], colours, strict=True):
            middle = np.asarray(cell)[cell.height // 2, cell.width // 2]
            assert np.abs(middle.astype(int) - colour).max() <= 1

    @pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200), (3, 600), (6000, 30), (30, 6000), (13, 13)])
    def test_odd_shapes_have_slices_of_whole_patches(self, size: tuple[int, int]) -> None:
        sliced = slice_image(Image.new("RGB", size), CONFIG)
        columns, rows = sliced.grid or (0, 0)
        assert len(sliced.slices) == 1 + columns * rows
        for picture in sliced.slices:
            assert picture.width % 14 == picture.height % 14 == 0
            assert min(picture.size) >= 14

    @given(st.integers(1, 4000), st.integers(1, 4000))
    @example(1077, 683)
    @example(1228, 2237)
    @example(1534, 1886)
    def test_grid_and_sizes_are_minicpm_vs(self, width: int, height: int) -> None:
        grid, overview, cell = reference_slicing(width, height)
        if grid is None:
            assert math.ceil(width * height / 448**2) <= 1
            assert fit_size((width, height), CONFIG, enlarge=True) == overview
            return
        multiple = min(math.ceil(width * height / 448**2), 9)
        assert best_grid(width, height, multiple, 9) == grid
        assert fit_size((width, height), CONFIG, enlarge=False) == overview
        if width * height < 4_000_000 and max(width, height) < 200 * min(width, height):
            sizes = [s.size for s in slice_image(Image.new("L", (width, height)), CONFIG).slices]
            assert sizes == [overview] + [cell] * (grid[0] * grid[1])

    @given(st.integers(1, 9), st.sampled_from([14, 28]), st.integers(100, 600))
    def test_configuration_is_followed(self, most: int, patch: int, resolution: int) -> None:
        config = ImageProcessorConfig(max_slice_nums=most, scale_resolution=resolution, patch_size=patch)
        sliced = slice_image(Image.new("L", (900, 700)), config)
        assert len(sliced.slices) <= 1 + most
        assert all(s.width % patch == s.height % patch == 0 for s in sliced.slices)


def reference_slicing(
    width: int, height: int, side: int = 448, patch: int = 14, most: int = 9
) -> tuple[tuple[int, int] | None, tuple[int, int], tuple[int, int] | None]:
    """MiniCPM-V's slicing, step by step: (grid, size of the overview, size of a cell)."""

    def whole(length: float, unit: int) -> int:
        return max(round(length / unit) * unit, unit)

    def fit(w: float, h: float, enlarge: bool) -> tuple[int, int]:
        if w * h > side * side or enlarge:
            ratio = w / h
            h = int(side / math.sqrt(ratio))
            w = int(h * ratio)
        return whole(w, patch), whole(h, patch)

    multiple = min(math.ceil(width * height / (side * side)), most)
    if multiple <= 1:
        return None, fit(width, height, True), None
    best, error = (1, 1), math.inf
    for count in (multiple - 1, multiple, multiple + 1):
        if count == 1 or count > most:
            continue
        for columns in range(1, count + 1):
            if count % columns == 0:
                rows = count // columns
                distance = abs(math.log(width / height) - math.log(columns / rows))
                if distance < error:
                    best, error = (columns, rows), distance
    columns, rows = best
    # The sides are rounded to whole columns and rows before a cell's aspect is taken.
    cell = fit(whole(width, columns) / columns, whole(height, rows) / rows, True)
    return best, fit(width, height, False), cell


class TestPatchify:
    def test_patches_are_row_by_row_channels_outermost(self) -> None:
        image = noise(42, 28)
        patches, rows, columns = patchify(image, 14)
        assert (rows, columns) == (2, 3)
        assert patches.shape == (6, 3 * 14 * 14)
        assert patches.dtype == np.float32
        pixels = np.asarray(image).astype(np.float64)
        for row in range(2):
            for column in range(3):
                block = pixels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
                wanted = ((block - 127.5) / 127.5).transpose(2, 0, 1).ravel()
                np.testing.assert_allclose(patches[row * 3 + column], wanted, atol=1e-6)
