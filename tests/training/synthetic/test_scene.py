"""What a scene says is what its picture shows."""

from __future__ import annotations

import math
import random
from itertools import combinations

import numpy as np
import pytest

from training.synthetic.scene import COLOURS, JITTER, SLICE, cell_of, draw, random_scene, random_size, thing_mask
from training.synthetic.shapes import SHAPES

SEEDS = range(60)


def test_the_seed_decides() -> None:
    first, again, other = (random_scene(random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert draw(first).tobytes() == draw(again).tobytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_things_lie_apart_inside_the_picture(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    width, height = scene.size
    assert 1 <= len(scene.things) <= 6
    assert draw(scene).size == scene.size
    for thing in scene.things:
        left, top, right, bottom = thing.box
        assert 0 < left < right < width
        assert 0 < top < bottom < height
        assert 0.09 < max(right - left, bottom - top) / math.sqrt(width * height) < 0.4
    for a, b in combinations((thing.box for thing in scene.things), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thing_has_its_colour_where_its_mask_is(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    pixels = np.asarray(draw(scene)).astype(int)
    for thing in scene.things:
        left, top, right, bottom = thing.box
        shown = pixels[top:bottom, left:right][np.asarray(thing_mask(thing)) == 255].mean(0)  # [3]
        # Light and noise may add to the jitter; no other colour is then nearer.
        nearest = min(COLOURS, key=lambda name: float(np.abs(shown - np.array(COLOURS[name])).sum()))
        assert nearest == thing.colour
        assert max(abs(a - b) for a, b in zip(thing.rgb, COLOURS[thing.colour], strict=True)) <= JITTER


def test_a_crowded_picture_still_gets_all_things() -> None:
    assert all(len(random_scene(random.Random(s), 6, size=(180, 180)).things) == 6 for s in range(40))


def test_every_shape_has_its_own_area() -> None:
    shares = {}
    for shape in SHAPES:
        scene = random_scene(random.Random(0), 1, [shape], sides=(100, 100))
        shares[shape] = float(np.asarray(thing_mask(scene.things[0])).mean() / 255)
    assert shares["square"] > shares["circle"] > shares["heart"] > shares["triangle"] > shares["star"]


def test_cells() -> None:
    assert cell_of((40, 40, 60, 60), (300, 300)) == 0
    assert cell_of((140, 40, 160, 60), (300, 300)) == 1
    assert cell_of((240, 240, 260, 260), (300, 300)) == 8
    assert cell_of((90, 40, 110, 60), (300, 300)) is None


def test_sizes() -> None:
    sizes = [random_size(random.Random(seed)) for seed in range(300)]
    assert all(0.6 < width / height < 1.62 for width, height in sizes)
    roots = [math.sqrt(width * height) for width, height in sizes]
    assert all(148 < root <= 420 for root in roots)
    assert 0.8 < sum(root <= SLICE for root in roots) / len(roots) < 0.95  # mostly one slice
    assert max(width / height for width, height in (random_size(random.Random(s), 2.5) for s in range(300))) > 2
