"""The vision encoder learns patches, places and lines before the decoder looks at it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from pipeline.processing.tokenizer import Tokenizer
from training.model import IGNORED, OmniForTraining
from training.muon import MuonAdamW
from training.synthetic.dense import COLOURS, WHAT
from training.vision_words import (
    EMPTY_WEIGHT,
    VisionWords,
    _loss,
)

from .synthetic.needs_fonts import needs_fonts


@needs_fonts
@pytest.mark.parametrize(("kind", "score"), [("patches", "patches"), ("scene", "places"), ("line", "lines")])
def test_pictures_are_learnt(mini_initial: Path, kind: str, score: str) -> None:
    """Each kind of picture alone, by the default checkpoint's architecture."""
    torch.manual_seed(0)
    task = VisionWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    drawn = (task.draw(random.Random(seed), "train", 1.0) for seed in range(100))
    item = next(item for item in drawn if getattr(item, kind))
    batch = task.collate([item])
    assert len(batch["patches"]) == int(batch["sizes"].prod())
    assert len(batch["dense"][0]) == len(batch["patches"]) * (kind == "patches")
    optimizer = MuonAdamW(task.named_parameters(), lr=1e-3)
    first = task(**batch)["loss"].item()
    for _ in range(120 if item.line else 60):
        optimizer.zero_grad()
        loss = task(**batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    assert task.score([item])[score] > 0.9


@needs_fonts
def test_pictures_of_all_kinds_are_one_batch(mini_initial: Path) -> None:
    """The loss of a batch is the sum of the losses of its labelled patches and of its places."""
    task = VisionWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    items = [task.draw(random.Random(seed), "train", 1.0) for seed in range(40)]
    assert all(sum(bool(getattr(item, kind)) for item in items) > 1 for kind in ("patches", "scene", "line"))
    kinds = [[item for item in items if (item.patches is None) == told] for told in (False, True)]
    with torch.inference_mode():
        together = task(**task.collate(items))["loss"]
        apart = sum(task(**task.collate(kind))["loss"] for kind in kinds)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_a_patch_that_shows_nothing_weighs_less() -> None:
    logits = torch.zeros(2, len(COLOURS))
    logits[0, 1] = 5.0  # wrong about nothing
    logits[1, 2] = 5.0  # right about a colour
    wrong, right = torch.logsumexp(logits[0], 0), torch.logsumexp(logits[1], 0) - 5
    expected = (EMPTY_WEIGHT * wrong + right) / (EMPTY_WEIGHT + 1)
    torch.testing.assert_close(_loss(logits, torch.tensor([0, 2])), expected)


def test_no_class_is_empty() -> None:
    assert len(set(WHAT)) == len(WHAT)
    assert WHAT[0] == COLOURS[0] == "none"


@needs_fonts
def test_before_their_time_embeds_learn_nothing(mini_initial: Path) -> None:
    task = VisionWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    for difficulty, learns in ((0.4, False), (0.7, True)):
        items = [task.draw(random.Random(seed), "train", difficulty) for seed in range(12)]
        assert any(item.patches for item in items)
        task.zero_grad()
        task(**task.collate(items))["loss"].backward()
        gradient = task.vision.resampler.kv_proj.weight.grad
        assert (gradient is not None and bool(gradient.any())) == learns
        assert task.what.weight.grad.any()


@needs_fonts
def test_the_last_layer_is_fitted_to_what_embeds_are_wanted_to_be(mini_initial: Path) -> None:
    task = VisionWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    items = [task.draw(random.Random(seed), "train", 1.0) for seed in range(40)]
    told = [item for item in items if item.patches is None]
    assert {bool(item.line) for item in told} == {False, True}

    @torch.inference_mode()
    def apart() -> float:
        squares = []
        for item in told:
            batch, shapes = task.collate([item]), [(item.piece.rows, item.piece.columns)]
            places = {name: each[0] for name, each in batch["places"].items()}
            embeds = task.vision.resampler(task.features(batch["patches"], shapes), shapes)[0]
            squares.append((embeds - task.wanted(places)).square()[places["what"] != IGNORED])
        return float(torch.cat(squares).mean())

    before = apart()
    task.fit_last_layer(items)
    assert apart() < 0.5 * before
