"""What teaches an encoder before the decoder listens to it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from training.encoder_heads import EMPTY_WEIGHT, AudioWords, VisionPatches, _loss
from training.initialise import whiten_patches
from training.model import OmniForTraining
from training.synthetic.dense import COLOURS, WHAT
from training.synthetic.generated import Generated
from training.synthetic.words import CTC_UNITS, ctc_targets

from .synthetic.needs_fonts import needs_fonts


@pytest.fixture
def model(tiny_path: Path) -> OmniForTraining:
    return OmniForTraining.from_pretrained(tiny_path)


def test_generated_examples_depend_on_seed_split_and_place_alone() -> None:
    def draw(rng: random.Random, split: str, difficulty: float) -> tuple[float, str, float]:
        return rng.random(), split, difficulty

    data = Generated(draw, 8, 5, "train")
    assert list(data) == list(Generated(draw, 8, 5, "train"))
    assert [difficulty for _, _, difficulty in data] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    other = Generated(draw, 8, 5, "test")
    assert {number for number, _, _ in data}.isdisjoint(number for number, _, _ in other)
    assert {difficulty for _, _, difficulty in other} == {1.0}


def test_the_words_of_a_phrase_are_learnt(model: OmniForTraining) -> None:
    torch.manual_seed(0)
    task = AudioWords(model)
    mel, target = task.draw(random.Random(3), "train", 1.0)
    batch = task.collate([(mel, target)])
    optimizer = torch.optim.Adam(task.parameters(), 3e-3)
    first = task(**batch)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = task(**batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    assert task.score([(mel, target)]) == {"phrases right": 1.0}
    assert task.score([(mel, [*target, 1])]) == {"phrases right": 0.0}


def test_units_of_the_blank_and_the_words_do_not_meet() -> None:
    assert 0 not in ctc_targets(" ".join(unit for unit in CTC_UNITS if unit.isascii()), "en")
    with pytest.raises(KeyError, match="xylophone"):
        ctc_targets("a xylophone", "en")


@needs_fonts
def test_patches_are_learnt(model: OmniForTraining) -> None:
    torch.manual_seed(0)
    task = VisionPatches(model)
    item = task.draw(random.Random(11), "train", 0.0)
    batch = task.collate([item])
    assert len(batch["what"]) == len(batch["patches"]) == int(batch["sizes"].prod())
    optimizer = torch.optim.Adam(task.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task(**batch)["loss"].backward()
        optimizer.step()
    scores = task.score([item])
    assert scores["what"] > 0.9
    assert scores["colour"] > 0.9


def test_a_patch_that_shows_nothing_weighs_less() -> None:
    logits = torch.zeros(2, len(COLOURS))
    logits[0, 1] = 5.0  # wrong about nothing
    logits[1, 2] = 5.0  # right about a colour
    wrong, right = torch.logsumexp(logits[0], 0), torch.logsumexp(logits[1], 0) - 5
    expected = (EMPTY_WEIGHT * wrong + right) / (EMPTY_WEIGHT + 1)
    torch.testing.assert_close(_loss(logits, torch.tensor([0, 2])), expected)


def test_whitened_patches_have_unit_variance_in_every_component() -> None:
    rng = np.random.default_rng(0)
    scales = np.linspace(1, 30, 12)
    patches = torch.from_numpy((rng.standard_normal((4000, 12)) * scales + 7).astype(np.float32))
    kernel, bias = torch.ones(5, 3, 2, 2), torch.zeros(5)
    kernel[4] = 0  # a row that isn't in use
    whiten_patches(kernel, bias, patches)
    out = patches @ kernel.flatten(1).T + bias
    assert torch.equal(kernel[4], torch.zeros(3, 2, 2))
    torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(out[:, :4].T.cov(), torch.eye(4), atol=0.02, rtol=0)


def test_no_class_is_empty() -> None:
    assert len(set(WHAT)) == len(WHAT)
    assert WHAT[0] == COLOURS[0] == "none"
