"""One stage of a recipe: lessons, one after another, by `training.finetune`'s own means.

    python -m training.stage BEGUN.yaml PART --seed SEED --checkpoint CHECKPOINT --output OUTPUT

PART of the settings that `training.recipe` has begun OUTPUT with. torchrun shares each batch out among its processes.
"""

from __future__ import annotations

import argparse
import logging
import os
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.data import ConcatDataset, Dataset
from transformers import TrainerCallback, TrainerState

from .arguments import DataArguments, FinetuneArguments, finish
from .features import Features, Featuriser
from .finetune import train_on
from .hardware import cores, keep_memory
from .model import OmniForTraining
from .synthetic.world import World
from .tuning import TuningArguments

BATCH = "per_device_train_batch_size"
LEAST = 8  # examples of a batch for a process


def train_stage(stage: dict[str, Any], start: Path, output: Path, seed: int) -> None:
    """Lessons for the language model, and for the parts of the encoders that the stage `tunes`. The token embeddings
    stay as they were drawn: the encoders learn to give them."""
    options = {"output_dir": str(output), "use_cpu": not torch.cuda.is_available(), "seed": seed} | stage["training"]
    options |= {"max_steps": steps_of(stage), "train_sampling_strategy": "sequential"}
    batch = options[BATCH]
    options[BATCH] = batch // int(os.environ.get("WORLD_SIZE", "1"))
    data = DataArguments(
        checkpoint=str(start),
        save_dtype=stage.get("save_dtype", "float32"),
        muon=True,
        encoder_share=stage.get("encoder_share", 1.0),
        ema_decay=stage["ema_decay"],
    )
    switches: dict[str, Any] = {f"tune_{part}": True for part in stage["tunes"]}
    tuning = TuningArguments(tune_embeddings=False, **switches)
    data, tuning, training = finish(data, tuning, FinetuneArguments(**options))
    lessons = _lessons(stage, batch, seed, Featuriser.from_pretrained(start))
    train_on(lessons, None, data, tuning, training, [SketchNoise(stage["lessons"])])


def steps_of(stage: dict[str, Any]) -> int:
    return sum(lesson["steps"] for lesson in stage["lessons"])


def processes_for(stage: dict[str, Any]) -> int:
    """One a core, each with as many examples of a batch. Two with a thread each are faster than one with two."""
    batch = stage["training"][BATCH]
    most = 1 if torch.cuda.is_available() else min(cores(), max(batch // LEAST, 1))
    return next(count for count in range(most, 0, -1) if batch % count == 0)


def _lessons(stage: dict[str, Any], batch: int, seed: int, featurise: Featuriser) -> Dataset[Features]:
    """One after another: a mixture of tasks each, and how many steps it takes."""
    return ConcatDataset(
        World(lesson["tasks"], lesson["steps"] * batch, f"{seed} {number}", featurise)
        for number, lesson in enumerate(stage["lessons"])
    )


class SketchNoise(TrainerCallback):
    """Each lesson's `noise` of sketches: what is learnt first is learnt late, or not at all, from noisy ones."""

    def __init__(self, lessons: list[dict[str, Any]]) -> None:
        self.ends = list(accumulate(lesson["steps"] for lesson in lessons))
        self.noise = [lesson.get("noise", 1.0) for lesson in lessons]

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        model: OmniForTraining = kwargs["model"]
        model.noise = self.noise[bisect_right(self.ends, state.global_step)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("begun", type=Path)
    parser.add_argument("part")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_memory()
    begun = yaml.safe_load(args.begun.read_text("utf-8"))
    train_stage(begun["settings"][args.part], args.checkpoint, args.output, args.seed)


if __name__ == "__main__":
    main()
