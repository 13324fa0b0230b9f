"""Pictures of coloured shapes whose every property is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .shapes import SHAPES, outline

Colour = tuple[int, int, int]
Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""(left, top, right, bottom); pixels, as those of Size = (width, height)."""

COLOURS: dict[str, Colour] = {
    "red": (214, 34, 36),
    "green": (40, 160, 62),
    "blue": (38, 84, 216),
    "yellow": (246, 214, 36),
    "orange": (246, 132, 20),
    "purple": (136, 50, 172),
    "brown": (116, 68, 36),
    "black": (20, 20, 22),
}

JITTER = 12  # of each channel of a colour
MAX_TILT = 15.0  # degrees
SUPERSAMPLE = 3
SLICE = 224  # the root of a slice's area, in pixels: preprocessor_config.json's scale_resolution
ONE_SLICE = 0.88  # how many pictures are not cut
UNCLEAR = 0.06
"""A centre nearer than this to a border of the 3 x 3 cells, in sides of the picture, is in no cell."""


@dataclass(frozen=True)
class Background:
    """A colour, a ramp of light from side to side (`ramp` levels, `angle` in radians) and noise."""

    colour: Colour
    ramp: float = 0.0
    angle: float = 0.0
    noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Thing:
    """A shape that fills `box`, turned by `tilt` degrees.

    `cell` is its place in the 3 x 3 cells of the picture, row by row, or None near a border of them.
    """

    shape: str
    colour: str
    box: Box
    cell: int | None
    rgb: Colour
    tilt: float

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    size: Size
    background: Background


def random_size(rng: random.Random, widest: float = 1.6) -> Size:
    """An aspect ratio from 0.62 to `widest`; mostly the area of one slice at most, sometimes of several."""
    ratio = math.exp(rng.uniform(math.log(0.62), math.log(widest)))
    root = rng.uniform(150, SLICE) if rng.random() < ONE_SLICE else rng.uniform(SLICE, 420)
    return int(root * math.sqrt(ratio)), int(root / math.sqrt(ratio))


def random_background(rng: random.Random, dark: bool = False) -> Background:
    tone = rng.choice((0, 0, 25, 45)) if not dark else rng.randrange(0, 60)
    level = tone if dark else 255 - tone
    tint = 0 if rng.random() < 0.4 else 14
    colour = _near(rng, (level, level, level), tint)
    ramp = rng.uniform(6, 22) if rng.random() < 0.3 else 0.0
    noise = rng.uniform(2, 9) if rng.random() < 0.3 else 0.0
    return Background(colour, ramp, rng.uniform(0, 2 * math.pi), noise, rng.getrandbits(32))


def jittered(rng: random.Random, colour: str) -> Colour:
    return _near(rng, COLOURS[colour], JITTER)


def random_scene(
    rng: random.Random,
    count: int | None = None,
    shapes: Sequence[str] = SHAPES,
    colours: Sequence[str] = tuple(COLOURS),
    size: Size | None = None,
    sides: tuple[float, float] | None = None,
) -> Scene:
    """`count` things (1 to 6 by default) of the given shapes and colours, `sides` pixels large (by default
    0.11 to 0.38 of the picture), none touching another. A thing that finds no room is made smaller."""
    size = size or random_size(rng)
    root = math.sqrt(size[0] * size[1])
    sides = sides or (0.11 * root, 0.38 * root)
    count = count or rng.randint(1, 6)
    things: list[Thing] = []
    while len(things) < count:
        shape, colour, tilt = rng.choice(shapes), rng.choice(colours), rng.uniform(-MAX_TILT, MAX_TILT)
        side = rng.uniform(*sides)
        while (box := _free_box(rng, shape, tilt, side, size, things)) is None and side > sides[0]:
            side = max(side * 0.85, sides[0])
        if box is None:
            things.clear()  # the picture is full
        else:
            things.append(Thing(shape, colour, box, cell_of(box, size), jittered(rng, colour), tilt))
    return Scene(tuple(things), size, random_background(rng))


def cell_of(box: Box, size: Size) -> int | None:
    """Row by row, the cell of the 3 x 3 that holds the centre, or None near a border."""
    x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
    if min(abs(part - third) for part in (x, y) for third in (1 / 3, 2 / 3)) < UNCLEAR:
        return None
    return int(y * 3) * 3 + int(x * 3)


def draw(scene: Scene) -> Image.Image:
    image = Image.new("RGB", scene.size, scene.background.colour)
    for thing in scene.things:
        image.paste(thing.rgb, thing.box, thing_mask(thing))
    return shade(image, scene.background)


def thing_mask(thing: Thing) -> Image.Image:
    """How much of each pixel of its box a thing covers, 0 to 255 (mode L)."""
    width, height = thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]
    large = Image.new("L", (width * SUPERSAMPLE, height * SUPERSAMPLE))
    points = [(x * large.width, y * large.height) for x, y in outline(thing.shape, thing.tilt)[0]]
    ImageDraw.Draw(large).polygon(points, fill=255)
    return large.reduce(SUPERSAMPLE)


def shade(image: Image.Image, background: Background) -> Image.Image:
    """The picture under the background's light and noise."""
    if not background.ramp and not background.noise:
        return image
    width, height = image.size
    x = np.linspace(-1, 1, width, dtype=np.float32) * (background.ramp * math.cos(background.angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * (background.ramp * math.sin(background.angle))
    light = x[None, :] + y[:, None]  # [H, W]
    if background.noise:
        noise = np.random.default_rng(background.seed).standard_normal((height, width), dtype=np.float32)
        light += noise * background.noise
    pixels = np.asarray(image).astype(np.int16) + light.astype(np.int16)[..., None]  # [H, W, 3]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _near(rng: random.Random, colour: Colour, most: int) -> Colour:
    red, green, blue = (min(max(level + rng.randint(-most, most), 0), 255) for level in colour)
    return red, green, blue


def _free_box(
    rng: random.Random, shape: str, tilt: float, side: float, size: Size, things: Sequence[Thing]
) -> Box | None:
    """A random place for a thing whose longer side is `side`, if one is found."""
    _, aspect = outline(shape, tilt)  # width / height
    width, height = round(side * min(aspect, 1.0)), round(side * min(1 / aspect, 1.0))
    for _ in range(30):
        x, y = rng.random(), rng.random()
        if rng.random() < 0.7:  # in the clear middle of a cell
            x, y = ((rng.randrange(3) + 0.5) / 3 + rng.uniform(-0.1, 0.1) for _ in range(2))
        left = min(max(round(x * size[0] - width / 2), 3), size[0] - width - 3)
        top = min(max(round(y * size[1] - height / 2), 3), size[1] - height - 3)
        box = (left, top, left + width, top + height)
        if not any(_touch(box, thing.box) for thing in things):
            return box
    return None


def _touch(a: Box, b: Box, gap: int = 6) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap
