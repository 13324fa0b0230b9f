"""Generated examples as a data set."""

from __future__ import annotations

import random

from training.synthetic.generated import Generated


def test_generated_examples_depend_on_seed_split_and_place_alone() -> None:
    def draw(rng: random.Random, split: str, difficulty: float) -> tuple[float, str, float]:
        return rng.random(), split, difficulty

    data = Generated(draw, 8, 5, "train")
    assert list(data) == list(Generated(draw, 8, 5, "train"))
    assert [difficulty for _, _, difficulty in data] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    other = Generated(draw, 8, 5, "test")
    assert {number for number, _, _ in data}.isdisjoint(number for number, _, _ in other)
    assert {difficulty for _, _, difficulty in other} == {1.0}
    harder = Generated(draw, 8, 5, "train", easiest=0.5)
    assert [difficulty for _, _, difficulty in harder] == [0.5, 0.625, 0.75, 0.875, 1.0, 1.0, 1.0, 1.0]
