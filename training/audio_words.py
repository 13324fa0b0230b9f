"""The audio encoder with a head, for learning before the decoder listens to it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.processing.audio import log_mel
from pipeline.processing.tokenizer import Tokenizer

from .last_layer import least_squares, outputs_of
from .model import OmniForTraining
from .synthetic.example import Language, Split
from .synthetic.generated import Generated
from .synthetic.scene import random_scene
from .synthetic.scene_questions import questions
from .synthetic.speech import mask_mel, record
from .synthetic.words import CTC_UNITS, ctc_targets, phrase
from .token_head import TokenHead, best_path, token_ids

ENGLISH = 0.65
"""Of what it learns from; more of its words are misheard than of Chinese characters."""

MASKED = 0.4
"""Voices that it has learnt from are heard hardly better than others (5.5 and 6.2% of words wrong): it learns too
little rather than by heart."""

PHRASES = 0.75  # the rest are questions about a picture


class AudioWords(nn.Module):
    """The audio stage, whose embeds spell the words of a phrase."""

    def __init__(self, model: OmniForTraining, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.audio, self.processor = model.audio, model.model_config.audio_processor
        self.head = TokenHead(model.llm.weight, token_ids(tokenizer, CTC_UNITS))

    def forward(self, mels: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """targets: int64 [units] a phrase, 0 is the blank."""
        return {"loss": self.head.ctc(self.embeds(mels), targets)}

    def embeds(self, mels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Without those of begin and end."""
        return [embeds[1:-1] for embeds in self.audio(mels)]

    def prepare(self, seed: int) -> None:
        """Nothing to fit beforehand."""

    @torch.no_grad()
    def fit_last_layer(self, data: Generated) -> None:
        """The projection that brings embeds nearest to those of the words that they are taken for."""
        encoder, kept = self.audio.audio, []
        for mel, _ in data:
            with outputs_of(encoder.ln_post) as given:
                chances = self.head(self.embeds([torch.from_numpy(mel)])[0]).softmax(-1)
            inputs = F.pad(given[0], (0, 1), value=1.0)  # for the bias
            kept.append((inputs, chances @ self.head.table, (chances[:, 0] < 0.5).long()))
        matrix = least_squares(*(torch.cat(each) for each in zip(*kept, strict=True)))
        encoder.proj.weight.copy_(matrix[:-1].T)
        encoder.proj.bias.copy_(matrix[-1])

    def draw(self, rng: random.Random, split: Split, difficulty: float) -> tuple[np.ndarray, list[int]]:
        language: Language = "en" if rng.random() < (ENGLISH if split == "train" else 0.5) else "zh"
        text = _said(rng, language)
        mel = log_mel(record(rng, text, language, split), self.processor)
        masked = split == "train" and rng.random() < MASKED
        return mask_mel(rng, mel) if masked else mel, ctc_targets(text, language)

    @staticmethod
    def collate(batch: list[tuple[np.ndarray, list[int]]]) -> dict[str, Any]:
        return {"mels": [torch.from_numpy(mel) for mel, _ in batch], "targets": [torch.tensor(t) for _, t in batch]}

    @torch.inference_mode()
    def score(self, data: Generated) -> dict[str, float]:
        right = 0
        for mel, target in data:
            right += best_path(self.head(self.embeds([torch.from_numpy(mel)])[0])) == target
        return {"phrases right": right / len(data)}


def _said(rng: random.Random, language: Language) -> str:
    """A phrase to write down or a question about a picture."""
    if rng.random() < PHRASES:
        return phrase(rng, language)
    return rng.choice(questions(rng, random_scene(rng), language))[0]
