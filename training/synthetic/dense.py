"""Pictures with a label per patch, for teaching the vision encoder alone."""

from __future__ import annotations

import math
import random
import string
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .example import Language, Split
from .fonts import Font, fonts, load
from .lettering import random_ink, random_text
from .scene import COLOURS as NAMED_COLOURS
from .scene import Box, Size, random_background, random_scene, shade, thing_mask
from .shapes import SHAPES
from .vocabulary import CASELESS, CHARACTERS_ZH

PATCH = 14
PATCHES = 16  # the root of their number
UNCLEAR = -100  # the label that a loss ignores
MARGIN = 1
"""Pixels around a patch's centre that must agree on its label."""
THINNEST = 6
"""Pixels that the box of a thin glyph, such as 1, is widened to. Each box is also widened by a sixth of the
font's size where nothing else stands, so that most patches of a page have a label."""
PLAIN_SIZES = (25, 28, 32, 36)
SIZES = (20, 22, 25, 28, 32, 38, 45, 54, 64, 76)

WHAT = ("none", *SHAPES, *string.ascii_uppercase, *string.ascii_lowercase, *string.digits, *CHARACTERS_ZH)
COLOURS = ("none", *NAMED_COLOURS)

TWINS = {letter: letter.upper() for letter in CASELESS} | {"l": "I"}
"""Glyphs that look like another's, and have its label."""

CLASSES = {name: number for number, name in enumerate(WHAT)} | {twin: WHAT.index(of) for twin, of in TWINS.items()}
COLOUR_CLASSES = {name: number for number, name in enumerate(COLOURS)} | {"white": UNCLEAR, "grey": UNCLEAR}


def dense_example(
    rng: random.Random, split: Split, difficulty: float = 1.0
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A picture of whole patches with about a slice's area; what and which colour covers the centre of
    each patch: classes of WHAT and COLOURS, or UNCLEAR (int64 [rows * columns], row by row).

    With less `difficulty`, 0 to 1, fewer pictures have glyphs of all sizes, or are tilted or blurred.
    """
    ratio = math.exp(rng.uniform(math.log(0.62), math.log(1.6)))
    size = round(PATCHES * math.sqrt(ratio)) * PATCH, round(PATCHES / math.sqrt(ratio)) * PATCH
    kind = rng.random()
    canvas = _Canvas(rng, split, size, dark=0.15 < kind < 0.3, plain=rng.random() >= difficulty)
    if kind > 0.6:
        canvas.things(rng.randint(1, 3) if kind < 0.8 else rng.randint(2, 6))
    if kind < 0.8:
        layout = rng.choice((canvas.lines, canvas.lines, canvas.scatter)) if kind > 0.12 else canvas.one_line
        layout()
    return canvas.finish()


class _Canvas:
    """A picture and, upright as it is drawn, the class and the colour that owns each pixel."""

    def __init__(self, rng: random.Random, split: Split, size: Size, dark: bool, plain: bool) -> None:
        self.rng, self.split, self.size, self.plain = rng, split, size, plain
        self.sizes = PLAIN_SIZES if plain else SIZES
        self.background = random_background(rng, dark)
        self.picture = Image.new("RGB", size, self.background.colour)
        self.owner = np.zeros((2, size[1], size[0]), dtype=np.int64)  # [what and colour, H, W]
        self.inked = np.zeros((size[1], size[0]), dtype=bool)  # boxes that are taken

    def things(self, count: int) -> None:
        for thing in random_scene(self.rng, count, size=self.size, sides=(18, 75)).things:
            mask = thing_mask(thing)
            self.picture.paste(thing.rgb, thing.box, mask)
            left, top, right, bottom = thing.box
            classes = np.array([CLASSES[thing.shape], COLOUR_CLASSES[thing.colour]])
            region = self.owner[:, top:bottom, left:right]
            region[:, np.asarray(mask) > 127] = classes[:, None]
            self.inked[top:bottom, left:right] = True

    def one_line(self) -> None:
        text = self._text(8)
        font, size = self._font(text), 64
        while size > SIZES[0] and load(font, size).getlength(text) > 0.92 * self.size[0]:
            size -= 3
        size = self.rng.randint(min(size, max(SIZES[0], size // 2)), size)
        room = self.size[0] - load(font, size).getlength(text)
        top = self.rng.randint(size, max(self.size[1] - size // 2, size))
        self._write(text, font, size, round(self.rng.uniform(2, max(room - 2, 3))), top, self._ink())

    def lines(self) -> None:
        """Lines of text from top to bottom, up to 200 glyphs; all in one size or each in its own."""
        left, bottom, glyphs, most = 4, self.rng.randint(0, self.size[1] // 8), 0, self.rng.randint(60, 200)
        sizes = (self.rng.choice(self.sizes),) if self.rng.random() < 0.5 else self.sizes
        language, ink = self._language(), self._ink()
        while glyphs < most:
            size = self.rng.choice(sizes)
            bottom += round(size * self.rng.uniform(1.05, 1.35))
            if bottom > self.size[1] - 2:
                break
            language = language if self.rng.random() < 0.7 else self._language()
            ink = ink if self.rng.random() < 0.7 else self._ink()
            font = self.rng.choice(fonts(language, self.split))
            x = left + self.rng.randint(0, 8)
            while x < self.size[0] - size and glyphs < most:
                text = self._text(6, language)
                x = self._write(text, font, size, x, bottom, ink) + size // 3
                glyphs += len(text)

    def scatter(self) -> None:
        """Single glyphs of all fonts, sizes and colours."""
        for _ in range(self.rng.randint(50, 160)):
            language = self._language()
            character = self.rng.choice(CHARACTERS_ZH if language == "zh" else string.ascii_letters + string.digits)
            size = self.rng.choice(self.sizes)
            x, y = self.rng.randint(2, self.size[0] - size // 2), self.rng.randint(size, self.size[1])
            self._write(character, self.rng.choice(fonts(language, self.split)), size, x, y, self._ink())

    def finish(self) -> tuple[Image.Image, np.ndarray, np.ndarray]:
        tilt = self.rng.uniform(-4, 4) if self.rng.random() < 0.5 and not self.plain else 0.0
        picture = self.picture
        if tilt:
            picture = picture.rotate(tilt, Image.Resampling.BICUBIC, fillcolor=self.background.colour)
        if self.rng.random() < 0.25 and not self.plain:
            picture = picture.filter(ImageFilter.GaussianBlur(self.rng.uniform(0.3, 0.7)))
        what, colour = self._labels(tilt)
        return shade(picture, self.background), what, colour

    def _labels(self, tilt: float) -> np.ndarray:
        """int64 [2, rows * columns]: what the pixels around each patch's centre agree on."""
        width, height = self.size
        offsets = np.array([(x, y) for y in (-MARGIN, 0, MARGIN) for x in (-MARGIN, 0, MARGIN)])  # [9, 2]
        y, x = np.mgrid[PATCH // 2 : height : PATCH, PATCH // 2 : width : PATCH].reshape(2, -1, 1)  # [P, 1]
        x, y = x + offsets[:, 0] - width / 2, y + offsets[:, 1] - height / 2  # [P, 9]
        # Image.rotate turns the picture counter-clockwise; this is the way back.
        cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        columns = np.rint(x * cos - y * sin + width / 2).astype(int)
        rows = np.rint(x * sin + y * cos + height / 2).astype(int)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        found = self.owner[:, rows.clip(0, height - 1), columns.clip(0, width - 1)] * inside  # [2, P, 9]
        return np.where((found == found[..., :1]).all(-1), found[..., 0], UNCLEAR)

    def _write(self, text: str, font: Font, size: int, x: int, y: int, ink: tuple[str, tuple[int, int, int]]) -> int:
        """Sets glyphs from x on the baseline y, leaving out those that don't fit; the x that follows."""
        for character in text:
            mask, left, top, advance = _glyph(font, size, character)
            box = (x + left, y + top, x + left + mask.width, y + top + mask.height)
            x += advance
            if self._free(box):
                self.picture.paste(ink[1], box, mask)
                self.inked[box[1] : box[3], box[0] : box[2]] = True
                wide, high = (max((THINNEST - side + 1) // 2, size // 6) for side in mask.size)
                region = self.owner[:, max(box[1] - high, 0) : box[3] + high, max(box[0] - wide, 0) : box[2] + wide]
                classes = np.array([CLASSES[character], COLOUR_CLASSES[ink[0]]])
                region[:, region[0] == 0] = classes[:, None]
        return x

    def _free(self, box: Box) -> bool:
        if box[0] < 1 or box[1] < 1 or box[2] >= self.size[0] or box[3] >= self.size[1]:
            return False
        return not self.inked[box[1] + 1 : box[3] - 1, box[0] + 1 : box[2] - 1].any()

    def _ink(self) -> tuple[str, tuple[int, int, int]]:
        return random_ink(self.rng, self.background)

    def _language(self) -> Language:
        return "en" if self.rng.random() < 0.45 else "zh"

    def _text(self, max_length: int, language: Language | None = None) -> str:
        return random_text(self.rng, language or self._language(), self.split, max_length)

    def _font(self, text: str) -> Font:
        return self.rng.choice(fonts("en" if text.isascii() else "zh", self.split))


@lru_cache(maxsize=8192)
def _glyph(font: Font, size: int, character: str) -> tuple[Image.Image, int, int, int]:
    """A character's ink (mode L), its left and top from the pen on the baseline, and its advance."""
    face = load(font, size)
    mask = Image.new("L", (2 * size + 4, 2 * size + 4))
    pen = (size // 2, size + size // 2)
    ImageDraw.Draw(mask).text(pen, character, fill=255, font=face, anchor="ls")
    box = mask.getbbox() or (0, 0, 1, 1)
    return mask.crop(box), box[0] - pen[0], box[1] - pen[1], round(face.getlength(character))
