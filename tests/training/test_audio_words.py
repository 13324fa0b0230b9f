"""The audio encoder learns the words of a phrase before the decoder listens to it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

import training.audio_words
from pipeline.processing.tokenizer import Tokenizer
from training.audio_words import AudioWords
from training.model import OmniForTraining
from training.muon import MuonAdamW
from training.synthetic.words import CTC_UNITS, ctc_targets


def test_the_words_of_a_phrase_are_learnt(mini_initial: Path) -> None:
    torch.manual_seed(0)
    task = AudioWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    mel, target = task.draw(random.Random(3), "train", 1.0)
    batch = task.collate([(mel, target)])
    optimizer = MuonAdamW(task.named_parameters(), lr=1e-3)
    first = task(**batch)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = task(**batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    assert task.score([(mel, target)]) == {"phrases right": 1.0}
    assert task.score([(mel, [*target, 1])]) == {"phrases right": 0.0}


def test_the_last_layer_is_fitted_to_the_words_that_are_heard(mini_initial: Path) -> None:
    torch.manual_seed(0)
    task = AudioWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial))
    items = [task.draw(random.Random(seed), "train", 1.0) for seed in range(20)]

    @torch.inference_mode()
    def embeds() -> torch.Tensor:
        return torch.cat(task.embeds([torch.from_numpy(mel) for mel, _ in items]))

    first = embeds()
    wanted = task.head(first).softmax(-1) @ task.head.table
    task.fit_last_layer(items)
    assert (embeds() - wanted).square().mean() < 0.5 * (first - wanted).square().mean()


def test_mels_are_masked_in_training_alone(mini_initial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, masked = AudioWords(OmniForTraining.from_pretrained(mini_initial), Tokenizer(mini_initial)), []
    monkeypatch.setattr(training.audio_words, "mask_mel", lambda rng, mel: masked.append(1) or mel)
    for seed in range(12):
        task.draw(random.Random(seed), "test", 1.0)
    assert not masked
    for seed in range(12):
        task.draw(random.Random(seed), "train", 1.0)
    assert 0 < len(masked) < 12


def test_units_of_the_blank_and_the_words_do_not_meet() -> None:
    assert 0 not in ctc_targets(" ".join(unit for unit in CTC_UNITS if unit.isascii()), "en")
    with pytest.raises(KeyError, match="xylophone"):
        ctc_targets("a xylophone", "en")
