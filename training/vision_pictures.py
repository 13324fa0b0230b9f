"""The pictures that the vision encoder learns from apart: one slice each, and what is told of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from pipeline.config import ImageProcessorConfig
from pipeline.model.vision import PatchedSlice
from pipeline.processing.image import patchify, slice_image

from .sketch import Words
from .synthetic.dense import dense_example
from .synthetic.example import Language, Split
from .synthetic.lettering import Span, print_line, random_text
from .synthetic.page import random_page
from .synthetic.scene import draw, random_scene
from .synthetic.sketching import thing_words

EMBEDS_FROM = 0.4
"""The difficulty from which embeds learn scenes and lines of print. Before, features tell too little: the losses of
embeds only made noise, and letters did not appear."""

SCENES = 0.45  # of the pictures that are no labelled patches
PAGES = 0.2  # of the lines


@dataclass
class Picture:
    """One slice, and one of: a class and a colour a patch; the words that the places of a scene tell; a line of print
    and where its letters stand."""

    piece: PatchedSlice
    patches: tuple[np.ndarray, np.ndarray] | None = None
    scene: dict[int, Words] | None = None
    line: str = ""
    spans: list[Span] = field(default_factory=list)


def draw_picture(rng: random.Random, split: Split, difficulty: float, config: ImageProcessorConfig) -> Picture:
    """Labelled patches alone at first, a tenth of them in the end."""
    if rng.random() < 1 - 0.9 * (difficulty - EMBEDS_FROM) / (1 - EMBEDS_FROM):
        picture, what, colour = dense_example(rng, split, difficulty)
        return Picture(_piece(picture, config), (what, colour))
    if rng.random() < SCENES:
        scene = random_scene(rng)
        return Picture(_whole(draw(scene), config), scene=thing_words(scene))
    language: Language = "en" if rng.random() < 0.5 else "zh"
    if rng.random() < PAGES:
        page = random_page(rng, language, split)
        row = rng.randrange(len(page.cells))
        column = rng.randrange(len(page.cells[0]))
        piece = slice_image(page.picture, config).slices[1 + row * len(page.cells[0]) + column]
        return Picture(_piece(piece, config), line=page.cells[row][column], spans=page.spans[row][column])
    text = random_text(rng, language, split, 8 if language == "en" else 6)
    picture, spans = print_line(rng, text, language, split)
    return Picture(_whole(picture, config), line=text, spans=spans)


def _whole(picture: Image.Image, config: ImageProcessorConfig) -> PatchedSlice:
    return _piece(slice_image(picture, config).slices[0], config)


def _piece(picture: Image.Image, config: ImageProcessorConfig) -> PatchedSlice:
    patches, rows, columns = patchify(picture, config.patch_size)
    return PatchedSlice(torch.from_numpy(patches), rows, columns)
