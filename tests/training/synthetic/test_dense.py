"""Labels of patches say what their centres show."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from training.synthetic import dense as module
from training.synthetic.dense import COLOURS, PATCH, UNCLEAR, WHAT, dense_example
from training.synthetic.scene import COLOURS as NAMED_COLOURS
from training.synthetic.shapes import SHAPES
from training.synthetic.vocabulary import CASELESS

from .needs_fonts import needs_fonts

pytestmark = needs_fonts


@pytest.mark.parametrize("seed", range(30))
def test_pictures_are_whole_patches_of_a_slices_area(seed: int) -> None:
    picture, what, colour = dense_example(random.Random(seed), "train")
    columns, rows = picture.width // PATCH, picture.height // PATCH
    assert (columns * PATCH, rows * PATCH) == picture.size
    assert what.shape == colour.shape == (rows * columns,)
    assert what.dtype == colour.dtype == np.int64
    assert 0.85 < rows * columns / 256 < 1.15
    assert 0.6 < columns / rows < 1.7
    assert ((what == UNCLEAR) | ((what >= 0) & (what < len(WHAT)))).all()
    assert ((colour == UNCLEAR) | ((colour >= 0) & (colour < len(COLOURS)))).all()


@pytest.mark.parametrize("seed", range(60))
def test_the_centre_of_a_shapes_patch_has_its_colour(seed: int) -> None:
    picture, what, colour = dense_example(random.Random(seed), "train")
    centres = np.asarray(picture).astype(int)[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(-1, 3)
    shapes = (what > 0) & (what <= len(SHAPES))
    for shown, label in zip(centres[shapes], colour[shapes], strict=True):
        # Jitter, light and noise: up to some 60 levels; colours differ by more in some channel.
        assert np.abs(shown - np.array(NAMED_COLOURS[COLOURS[label]])).max() < 75


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_where_no_label_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without light and noise the middle of a patch labelled "none" is plain background."""
    monkeypatch.setattr(module, "shade", lambda picture, background: picture)
    picture, what, colour = dense_example(random.Random(seed), "test")
    grid = np.asarray(picture).astype(int).reshape(picture.height // PATCH, PATCH, -1, PATCH, 3)
    middles = grid[:, PATCH // 2, :, PATCH // 2].reshape(-1, 3)[what == 0]
    assert (np.abs(middles - np.median(middles, 0)).max(1) < 40).mean() > 0.98
    assert (colour[what == 0] == 0).all()


def test_ink_is_where_the_label_of_a_glyph_is() -> None:
    """A large glyph's patches, and they alone, have its class."""
    canvas = module._Canvas(random.Random(0), "train", (224, 224), dark=False, plain=False)
    font = module.fonts("zh", "train")[0]
    canvas._write("国", font, 64, 60, 140, ("red", NAMED_COLOURS["red"]))
    labels = canvas._labels(0.0)
    assert set(labels[0]) - {UNCLEAR} == {0, WHAT.index("国")}
    assert set(labels[1]) - {UNCLEAR} == {0, COLOURS.index("red")}
    ink = Image.eval(canvas.picture.convert("L"), lambda level: 255 * (level < 150)).getbbox()
    assert ink is not None
    for patch in np.flatnonzero(labels[0] == WHAT.index("国")):
        y, x = (int(n) * PATCH + PATCH // 2 for n in divmod(int(patch), 16))
        assert ink[0] - 64 // 6 <= x < ink[2] + 64 // 6
        assert ink[1] - 64 // 6 <= y < ink[3] + 64 // 6


def test_labels_turn_with_the_picture() -> None:
    canvas = module._Canvas(random.Random(0), "train", (224, 224), dark=False, plain=False)
    canvas.owner[:, 20:60, 150:200] = 3
    canvas.picture.paste((255, 0, 0), (150, 20, 200, 60))
    for tilt in (-4.0, 0.0, 4.0):
        turned = np.asarray(canvas.picture.rotate(tilt, fillcolor=(255, 255, 255))).astype(int)
        centres = turned[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(-1, 3)
        red = (centres[:, 0] > 200) & (centres[:, 1] < 50)
        what = canvas._labels(tilt)[0]
        assert (what == 3).sum() >= 6
        assert red[what == 3].all()
        assert not red[what == 0].any()


def test_classes() -> None:
    assert WHAT[0] == COLOURS[0] == "none"
    assert len(WHAT) == len(set(WHAT)) == 1 + 6 + 52 + 10 + 240
    assert all(module.CLASSES[letter] == module.CLASSES[letter.upper()] for letter in CASELESS)
    assert module.CLASSES["a"] != module.CLASSES["A"]


def test_every_class_but_the_twins_is_seen() -> None:
    rng, seen = random.Random(0), set()
    for _ in range(400):
        seen |= set(dense_example(rng, "train")[1].tolist())
    missing = {WHAT[label] for label in range(len(WHAT)) if label not in seen}
    assert missing == CASELESS | {"l"}


def test_the_seed_decides() -> None:
    (first, *labels), (again, *same), (other, *_) = (dense_example(random.Random(seed), "train") for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert all((a == b).all() for a, b in zip(labels, same, strict=True))
