"""Bytes of a picture -> slices as patches (MiniCPM-V's slicing, as Megrez was trained with it)."""

from __future__ import annotations

import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Transpose
from PIL.JpegImagePlugin import JpegImageFile

from ..config import ImageProcessorConfig
from ..errors import InvalidMedia, MediaTooLarge

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # up to twice the limit; check_size refuses these

JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""Not what stands in a scan's data: stuffed zeros and restarts."""
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MAX_JPEG_SCANS = 100
"""Progressive files have about ten; each decodes the whole picture once more."""

UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""By EXIF's orientation. Pillow's exif_transpose writes all tags anew, and fails on some that harm nobody."""

MAX_ASPECT_RATIO = 200
"""A thinner picture has no sensible slices: its short side is under a pixel of an overview."""


@dataclass(frozen=True)
class SlicedImage:
    """`slices` are RGB pictures, the overview first; `grid` is (columns, rows) of the others."""

    slices: list[Image.Image]
    grid: tuple[int, int] | None


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """An RGB picture from PNG, JPEG, WebP or GIF (its first frame).

    The orientation of EXIF is applied and transparency is laid on white. The size is checked from
    the header, before any pixel is decoded. Raises InvalidMedia, MediaTooLarge.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow fills the canvas of some GIFs before it tells their size
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:  # over twice the limit
        raise MediaTooLarge(f"the picture has too many pixels; at most {max_pixels:,} are allowed") from None
    except Exception:  # Pillow's parsers raise a dozen kinds on broken headers
        raise InvalidMedia("the picture can't be read; PNG, JPEG, WebP and GIF are supported") from None
    check_size(*image.size, max_pixels)
    if isinstance(image, JpegImageFile) and _jpeg_scans(data) > MAX_JPEG_SCANS:
        raise InvalidMedia(f"the JPEG picture has more than {MAX_JPEG_SCANS} scans")
    try:
        image.load()
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        turn = UPRIGHT.get(orientation)
        return to_rgb(image if turn is None else image.transpose(turn))
    except Exception as error:
        raise InvalidMedia(f"the {image.format} picture is damaged: {error}") from None


def _jpeg_scans(data: bytes) -> int:
    """Of the first picture; behind its end there may be others, or a film."""
    at, scans = 2, 0
    while (found := JPEG_MARKER.search(data, at)) and found[0] != END_OF_IMAGE:
        scans += found[0] == START_OF_SCAN
        at = found.end() + max(int.from_bytes(data[found.end() : found.end() + 2], "big"), 2)  # the segment
    return scans


def check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1:
        raise InvalidMedia("the picture is empty")
    if width * height > max_pixels:
        raise MediaTooLarge(
            f"the picture has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InvalidMedia(
            f"the picture of {width} x {height} is too thin; its sides may differ {MAX_ASPECT_RATIO}-fold at most"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB: 16-bit grey is scaled, transparency is laid on white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        grey = (values / top * 255).clip(0, 255).round().astype(np.uint8)
        if (transparent := image.info.get("transparency")) is not None:
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def slice_image(image: Image.Image, config: ImageProcessorConfig) -> SlicedImage:
    """Cuts a picture into an overview and, if it is large, a grid of slices."""
    width, height = image.size
    grid = grid_for(width, height, config)
    if grid is None:
        return SlicedImage([_resize(image, fit_size((width, height), config, enlarge=True))], None)
    overview = _resize(image, fit_size((width, height), config, enlarge=False))
    columns, rows = grid
    # Sides that the grid divides, then the cell's own size from them: as the model was trained.
    whole_w, whole_h = (max(round(side / n), 1) * n for side, n in ((width, columns), (height, rows)))
    cell_w, cell_h = fit_size((whole_w / columns, whole_h / rows), config, enlarge=True)
    whole = _resize(image, (cell_w * columns, cell_h * rows))
    cells = [
        whole.crop((x * cell_w, y * cell_h, (x + 1) * cell_w, (y + 1) * cell_h))
        for y in range(rows)
        for x in range(columns)
    ]
    return SlicedImage([overview, *cells], (columns, rows))


def grid_for(width: int, height: int, config: ImageProcessorConfig) -> tuple[int, int] | None:
    """(columns, rows) that a picture of this size is cut into, or None where it stays whole."""
    multiple = min(math.ceil(width * height / config.scale_resolution**2), config.max_slice_nums)
    return best_grid(width, height, multiple, config.max_slice_nums) if multiple > 1 else None


def best_grid(width: int, height: int, multiple: int, max_slices: int) -> tuple[int, int]:
    """(columns, rows) whose shape is nearest the picture's, in log ratio; the first on a tie."""
    counts = [n for n in (multiple - 1, multiple, multiple + 1) if 1 < n <= max_slices]
    candidates = [(columns, n // columns) for n in counts for columns in range(1, n + 1) if n % columns == 0]
    target = math.log(width / height)
    return min(candidates, key=lambda grid: abs(target - math.log(grid[0] / grid[1])))


def fit_size(size: tuple[float, float], config: ImageProcessorConfig, *, enlarge: bool) -> tuple[int, int]:
    """The size with the aspect of `size`, the area of scale_resolution² and sides that are whole
    patches. A smaller picture keeps its area unless `enlarge`."""
    width, height = size
    if enlarge or width * height > config.scale_resolution**2:
        ratio = width / height
        height = int(config.scale_resolution / math.sqrt(ratio))
        width = int(height * ratio)
    patch = config.patch_size
    return max(round(width / patch) * patch, patch), max(round(height / patch) * patch, patch)


def patchify(image: Image.Image, patch: int) -> tuple[np.ndarray, int, int]:
    """An RGB picture -> (float32 [rows * columns, 3 * patch²] in [-1, 1], rows, columns)."""
    pixels = (np.asarray(image, dtype=np.float32) - 127.5) / 127.5  # [H, W, 3]
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    grid = pixels.reshape(rows, patch, columns, patch, 3)
    return np.ascontiguousarray(grid.transpose(0, 2, 4, 1, 3)).reshape(rows * columns, -1), rows, columns


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)
