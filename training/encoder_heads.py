"""Each encoder with a cheap head of its own, for learning before the decoder listens to it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.model.vision import PatchedSlice
from pipeline.processing.audio import log_mel
from pipeline.processing.image import patchify

from .initialise import whiten_patches
from .model import IGNORED, OmniForTraining
from .synthetic.dense import COLOURS, WHAT, dense_example
from .synthetic.example import Language, Split
from .synthetic.generated import Generated
from .synthetic.scene import random_scene
from .synthetic.scene_questions import questions
from .synthetic.speech import record
from .synthetic.words import CTC_UNITS, ctc_targets, phrase

WHITENING_PICTURES = 300
EMPTY_WEIGHT = 0.2
"""Weight in the loss of a patch that shows nothing; about half of them do."""


class AudioWords(nn.Module):
    """The audio stage with a CTC head on its embeds."""

    def __init__(self, model: OmniForTraining) -> None:
        super().__init__()
        self.audio, self.processor = model.audio, model.model_config.audio_processor
        self.head = nn.Linear(model.model_config.audio.output_dim, len(CTC_UNITS) + 1)

    def forward(self, mels: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """targets: int64 [units] a phrase, 0 is the blank."""
        logits = [x.float().log_softmax(-1) for x in self.logits(mels)]
        lengths = torch.tensor([len(x) for x in logits])
        padded = nn.utils.rnn.pad_sequence(logits)  # [frames, phrases, units]
        loss = F.ctc_loss(
            padded, torch.cat(targets), lengths, torch.tensor([len(t) for t in targets]), zero_infinity=True
        )
        return {"loss": loss}

    def logits(self, mels: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.head(10 * embeds[1:-1]) for embeds in self.audio(mels)]

    def prepare(self, seed: int) -> None:
        """Nothing to fit beforehand."""

    def draw(self, rng: random.Random, split: Split, difficulty: float) -> tuple[np.ndarray, list[int]]:
        language: Language = "en" if rng.random() < 0.5 else "zh"
        text = _said(rng, language)
        return log_mel(record(rng, text, language, split), self.processor), ctc_targets(text, language)

    @staticmethod
    def collate(batch: list[tuple[np.ndarray, list[int]]]) -> dict[str, Any]:
        return {"mels": [torch.from_numpy(mel) for mel, _ in batch], "targets": [torch.tensor(t) for _, t in batch]}

    @torch.inference_mode()
    def score(self, data: Generated) -> dict[str, float]:
        right = 0
        for mel, target in data:
            best = self.logits([torch.from_numpy(mel)])[0].argmax(-1).unique_consecutive()
            right += best[best > 0].tolist() == target
        return {"phrases right": right / len(data)}


def _said(rng: random.Random, language: Language) -> str:
    """A phrase to write down or a question about a picture."""
    if rng.random() < 0.6:
        return phrase(rng, language)
    return rng.choice(questions(rng, random_scene(rng), language))[0]


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weight = logits.new_ones(logits.shape[1], dtype=torch.float32)
    weight[0] = EMPTY_WEIGHT
    return F.cross_entropy(logits.float(), labels, weight, ignore_index=IGNORED)


class VisionPatches(nn.Module):
    """SigLIP with two heads on its features: the class of what a patch's centre shows, and its colour."""

    def __init__(self, model: OmniForTraining) -> None:
        super().__init__()
        self.vision = model.vision
        width = model.model_config.vision.hidden_size
        self.what, self.colour = nn.Linear(width, len(WHAT)), nn.Linear(width, len(COLOURS))

    def forward(
        self, patches: torch.Tensor, sizes: torch.Tensor, what: torch.Tensor, colour: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """patches [T, 3 * patch²], sizes [slices, 2], labels int64 [T]."""
        features = self.features(patches, sizes)
        return {"loss": _loss(self.what(features), what) + _loss(self.colour(features), colour)}

    def features(self, patches: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return self.vision.vpm(patches, [(int(h), int(w)) for h, w in sizes], lambda: None)

    def prepare(self, seed: int) -> None:
        """Fits the first layer to the pictures it will see."""
        seen = [piece.patches for piece, _, _ in Generated(self.draw, WHITENING_PICTURES, seed, "train")]
        embedding = self.vision.vpm.embeddings.patch_embedding
        assert embedding.bias is not None
        whiten_patches(embedding.weight, embedding.bias, torch.cat(seen))

    @staticmethod
    def draw(rng: random.Random, split: Split, difficulty: float) -> tuple[PatchedSlice, np.ndarray, np.ndarray]:
        picture, what, colour = dense_example(rng, split, difficulty)
        patches, rows, columns = patchify(picture, 14)
        return PatchedSlice(torch.from_numpy(patches), rows, columns), what, colour

    @staticmethod
    def collate(batch: list[tuple[PatchedSlice, np.ndarray, np.ndarray]]) -> dict[str, Any]:
        return {
            "patches": torch.cat([piece.patches for piece, _, _ in batch]),
            "sizes": torch.tensor([(piece.rows, piece.columns) for piece, _, _ in batch]),
            "what": torch.from_numpy(np.concatenate([what for _, what, _ in batch])),
            "colour": torch.from_numpy(np.concatenate([colour for _, _, colour in batch])),
        }

    @torch.inference_mode()
    def score(self, data: Generated) -> dict[str, float]:
        """Patches right, among those that show something."""
        right = torch.zeros(2)
        shown = torch.zeros(2)
        for item in data:
            batch = self.collate([item])
            features = self.features(batch["patches"], batch["sizes"])
            for i, (head, labels) in enumerate(((self.what, batch["what"]), (self.colour, batch["colour"]))):
                something = labels > 0
                right[i] += (head(features).argmax(-1) == labels)[something].sum()
                shown[i] += something.sum()
        return {"what": float(right[0] / shown[0]), "colour": float(right[1] / shown[1])}
