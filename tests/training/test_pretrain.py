"""An encoder that is trained already gets hard examples at once, and keeps its first layer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from training import pretrain as module
from training.synthetic.generated import Generated
from training.vision_words import VisionWords

from .synthetic.needs_fonts import needs_fonts

pytestmark = needs_fonts


@pytest.mark.parametrize(("again", "difficulties"), [(False, [0.0, 0.5, 1.0, 1.0]), (True, [1.0] * 4)])
def test_trained_again(
    again: bool, difficulties: list[float], mini_initial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    prepared: list[int] = []
    fitted: list[int] = []

    class Watched(VisionWords):
        def draw(self, rng: random.Random, split: Any, difficulty: float) -> Any:
            if split == "train":
                given.append(difficulty)
            return super().draw(rng, split, difficulty)

        def prepare(self, seed: int) -> None:
            prepared.append(seed)

        def fit_last_layer(self, data: Generated) -> None:
            fitted.append(len(data))
            super().fit_last_layer(data)

    monkeypatch.setitem(module.TASKS, "vision", Watched)
    counts = {"steps": 2, "batch": 2, "workers": 0, "held_out": 2, "fitted": 9}
    scores = module.pretrain("vision", mini_initial, tmp_path, **counts, rate=1e-3, seed=5, again=again)
    assert scores
    assert given == difficulties + [1.0] * 9
    assert prepared == ([] if again else [5])
    assert fitted == [9]
    assert (tmp_path / "model.safetensors").exists()
