"""Teaches one encoder alone, with a cheap head of its own, before the decoder listens to it.

    python -m training.pretrain audio CHECKPOINT OUTPUT [--steps N]

`audio`: CTC on the words of spoken phrases (Graves et al., 2006). `vision`: what and which colour
each patch shows. The decoder's loss alone teaches an encoder of this size hundreds of times slower.
OUTPUT gets the encoder's tensors under their released names; a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from pipeline.config import AudioProcessorConfig
from pipeline.model.vision import PatchedSlice
from pipeline.processing.audio import log_mel
from pipeline.processing.image import patchify

from .hardware import trains_in_bfloat16
from .initialise import whiten_patches
from .model import IGNORED, OmniForTraining
from .synthetic.dense import COLOURS, WHAT, dense_example
from .synthetic.example import Language, Split
from .synthetic.scene import random_scene
from .synthetic.scene_questions import questions
from .synthetic.speech import record
from .synthetic.words import CTC_UNITS, ctc_targets, phrase

WHITENING_PICTURES = 300
EMPTY_WEIGHT = 0.2
"""Weight in the loss of a patch that shows nothing; seven in ten do."""


@dataclass
class Generated(Dataset):
    """Example i is drawn from the seed and i: nothing is stored, and a resumed run sees the same.

    In training the first half grows in difficulty from 0 to 1.
    """

    draw: Any  # (random.Random, Split, difficulty) -> an example
    size: int
    seed: int
    split: Split

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        difficulty = min(2 * index / self.size, 1.0) if self.split == "train" else 1.0
        return self.draw(random.Random(f"{self.seed} {self.split} {index}"), self.split, difficulty)


class AudioWords(nn.Module):
    """The audio stage with a CTC head on its embeds."""

    def __init__(self, model: OmniForTraining) -> None:
        super().__init__()
        self.audio = model.audio
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

    @staticmethod
    def draw(rng: random.Random, split: Split, difficulty: float) -> tuple[np.ndarray, list[int]]:
        language = rng.choice(("en", "zh"))
        text = _said(rng, language)
        return log_mel(record(rng, text, language, split), AudioProcessorConfig()), ctc_targets(text, language)

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


class VisionPatches(nn.Module):
    """SigLIP with two heads on its features: the class of what a patch's centre shows, and its colour."""

    def __init__(self, model: OmniForTraining) -> None:
        super().__init__()
        self.vision = model.vision
        width = model.model_config.vision.hidden_size
        self.what, self.colour = nn.Linear(width, len(WHAT)), nn.Linear(width, len(COLOURS))
        for name, classes in (("what_weight", WHAT), ("colour_weight", COLOURS)):  # most patches show nothing
            self.register_buffer(name, torch.tensor([EMPTY_WEIGHT] + [1.0] * (len(classes) - 1)), persistent=False)

    def forward(
        self, patches: torch.Tensor, sizes: torch.Tensor, what: torch.Tensor, colour: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """patches [T, 3 * patch²], sizes [slices, 2], labels int64 [T]."""
        features = self.features(patches, sizes)
        losses = [
            F.cross_entropy(head(features).float(), labels, weight, ignore_index=IGNORED)
            for head, labels, weight in (
                (self.what, what, self.what_weight),
                (self.colour, colour, self.colour_weight),
            )
        ]
        return {"loss": losses[0] + losses[1]}

    def features(self, patches: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return self.vision.vpm(patches, [(int(h), int(w)) for h, w in sizes], lambda: None)

    def prepare(self, seed: int) -> None:
        """Fits the first layer to the pictures it will see."""
        seen = [piece.patches for piece, _, _ in Generated(self.draw, WHITENING_PICTURES, seed, "train")]
        embedding = self.vision.vpm.embeddings.patch_embedding
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


TASKS: dict[str, Any] = {"audio": AudioWords, "vision": VisionPatches}


def pretrain(
    task: str, checkpoint: Path, output: Path, *, steps: int, batch: int, rate: float, seed: int, workers: int
) -> dict[str, float]:
    """Trains, scores on held-out examples, writes `output/model.safetensors`; the scores."""
    torch.manual_seed(seed)
    model = TASKS[task](OmniForTraining.from_pretrained(checkpoint))
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(200, steps // 10),
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=trains_in_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=50,
        save_steps=500,
        save_total_limit=1,
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=4 if workers else None,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        label_names=[],
        report_to=["tensorboard"],
        seed=seed,
    )
    last = get_last_checkpoint(output) if output.is_dir() else None
    if last is None:
        model.prepare(seed)
    data = Generated(model.draw, steps * batch, seed, "train")
    trainer = Trainer(model, arguments, data_collator=model.collate, train_dataset=data)
    trainer.train(resume_from_checkpoint=last)
    model.eval()
    scores = model.score(Generated(model.draw, 300, seed, "test"))
    tensors = {name: t.contiguous() for name, t in model.state_dict().items() if name.startswith(f"{task}.")}
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("checkpoint", type=Path, help="where the encoder begins")
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    scores = pretrain(**vars(args))
    print(", ".join(f"{name} {value:.3f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
