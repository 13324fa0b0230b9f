"""The vision encoder learns patches, places and lines before the decoder looks at it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from pipeline.model.vision import PatchedSlice
from pipeline.processing.tokenizer import Tokenizer
from training.model import IGNORED, OmniForTraining
from training.muon import MuonAdamW
from training.synthetic.dense import COLOURS, WHAT
from training.synthetic.sketching import ACROSS, DOWN, FRAMES
from training.vision_words import (
    EMPTY_WEIGHT,
    PLACED,
    UNITS,
    Picture,
    VisionWords,
    _labels,
    _line_labels,
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
    items = [task.draw(random.Random(seed), "train", 1.0) for seed in range(30)]
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


def test_every_word_has_one_head() -> None:
    assert len(PLACED) == sum(len(words) for words in UNITS.values())


def test_a_place_is_asked_what_it_shows_and_for_the_rest_where_there_is_some() -> None:
    piece = PatchedSlice(torch.zeros(1, 1), 1, 1)
    scene = Picture(piece, scene={3: ("star", "red", DOWN[4]), 4: ("star", "red", ACROSS[0])})
    labels = _labels([scene, Picture(piece, line="A", spans=[(9.2 / FRAMES, 9.8 / FRAMES)])])
    told = {name: {tuple(at): each[*at].item() for at in (each > 0).nonzero()} for name, each in labels.items()}
    star, red = UNITS["what"].index("star") + 1, UNITS["colour"].index("red") + 1
    assert {name: {(int(a), int(b)): label for (a, b), label in each.items()} for name, each in told.items()} == {
        "what": {(0, 3): star, (0, 4): star, (1, 9): UNITS["what"].index("A") + 1},
        "colour": {(0, 3): red, (0, 4): red},
        "down": {(0, 3): 5},
        "across": {(0, 4): 1},
    }
    assert not (labels["what"] == IGNORED).any()
    assert all((labels[name][0, 0], labels[name][1, 9]) == (IGNORED, IGNORED) for name in ("colour", "down", "across"))


def test_a_line_is_asked_its_letters_and_the_gaps_between_them() -> None:
    spans = [(10.0 / FRAMES, 15.0 / FRAMES), (18.0 / FRAMES, 19.9 / FRAMES), (20.1 / FRAMES, 21.9 / FRAMES)]
    told = "".join("?" if label == IGNORED else WHAT[label][0] for label in _line_labels("ABC", spans))
    assert told == ("n" * 10 + "??A??n??Bn?C").ljust(FRAMES, "n")


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
