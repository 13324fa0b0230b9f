"""The vision encoder learns patches, places and lines before the decoder looks at it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.model.vision import PatchedSlice
from pipeline.processing.tokenizer import Tokenizer
from training.model import OmniForTraining
from training.muon import MuonAdamW
from training.sketch import COLUMNS, ROWS, place_of
from training.synthetic.dense import COLOURS, WHAT
from training.vision_words import EMPTY_WEIGHT, SHOWN, VisionWords, _loss, _shares

from .synthetic.needs_fonts import needs_fonts


@needs_fonts
@pytest.mark.parametrize(("kind", "score"), [("patches", "patches"), ("places", "places"), ("line", "lines")])
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
    for _ in range(60):
        optimizer.zero_grad()
        loss = task(**batch)["loss"]
        loss.backward()
        optimizer.step()
    if kind == "line":  # CTC finds its places late: by then the blank alone has been learnt
        assert loss.item() < 0.2 * first
    else:
        assert task.score([item])[score] > 0.9


@needs_fonts
def test_pictures_of_all_kinds_are_one_batch(mini_initial: Path) -> None:
    """The loss of a batch is the sum of its kinds' losses."""
    task = VisionWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    items = [task.draw(random.Random(seed), "train", 1.0) for seed in range(30)]
    kinds = [[item for item in items if getattr(item, kind)] for kind in ("patches", "places", "line")]
    assert all(len(kind) > 1 for kind in kinds)
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


def test_a_place_tells_of_all_that_it_holds() -> None:
    """Two columns of eight rows on sixteen by four places: each patch is eight columns wide, two patches a place."""
    patches = np.zeros(16, dtype=np.int64)
    patches[0], patches[2], patches[3] = 5, 7, -100  # the upper left place's two, and one that is unclear
    shares = _shares(patches, PatchedSlice(torch.zeros(16, 1), 8, 2))
    assert shares.shape == (COLUMNS * ROWS, len(SHOWN))
    assert np.array_equal(shares.sum(1), np.ones(COLUMNS * ROWS))
    told = {place: {int(c): float(row[c]) for c in row.nonzero()[0]} for place, row in enumerate(shares) if row[0] < 1}
    assert told == {place_of(0.25, 0.0): {5: 0.5, 7: 0.5}}


@needs_fonts
def test_before_their_time_embeds_learn_nothing(mini_initial: Path) -> None:
    task = VisionWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    for difficulty, learns in ((0.0, False), (0.6, True)):
        items = [task.draw(random.Random(seed), "train", difficulty) for seed in range(4)]
        assert all(item.patches for item in items)
        task.zero_grad()
        task(**task.collate(items))["loss"].backward()
        gradient = task.vision.resampler.kv_proj.weight.grad
        assert (gradient is not None and bool(gradient.any())) == learns
        assert task.what.weight.grad.any()
