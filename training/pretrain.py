"""Teaches one encoder alone, with a cheap head of its own, before the decoder listens to it.

    python -m training.pretrain audio CHECKPOINT OUTPUT [--steps N]

`audio`: CTC on the words of spoken phrases (Graves et al., 2006). `vision`: what and which colour
each patch shows. The decoder's loss alone teaches an encoder much more slowly. In the end the last layer is fitted to
what the decoder has been taught to read (`last_layer`).
OUTPUT gets the encoder's tensors under their released names; a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from pipeline.processing.tokenizer import Tokenizer

from .audio_words import AudioWords
from .hardware import keep_memory, trains_in_bfloat16
from .model import OmniForTraining, attention_for
from .muon import MuonAdamW
from .synthetic.generated import Generated
from .trainer import last_checkpoint
from .vision_words import VisionWords

TASKS: dict[str, Any] = {"audio": AudioWords, "vision": VisionWords}


def pretrain(
    task: str,
    checkpoint: Path,
    output: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    workers: int,
    held_out: int,
    fitted: int,
    again: bool = False,
) -> dict[str, float]:
    """Trains, scores on `held_out` examples, fits the last layer to `fitted` ones, writes `output/model.safetensors`;
    the scores.

    `again`: the checkpoint's encoder is trained already, and gets the hardest examples from the first step on.
    """
    torch.manual_seed(seed)
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(200, steps // 10),
        max_grad_norm=1.0,
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
    omni = OmniForTraining.from_pretrained(checkpoint, attention_for(arguments))
    model = TASKS[task](omni, Tokenizer(checkpoint))
    last = last_checkpoint(output)
    if last is None and not again:
        model.prepare(seed)
    data = Generated(model.draw, steps * batch, seed, "train", easiest=float(again))
    optimizer = MuonAdamW(model.named_parameters(), lr=rate)
    trainer = Trainer(model, arguments, data_collator=model.collate, train_dataset=data, optimizers=(optimizer, None))
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    model.eval()
    scores = model.score(Generated(model.draw, held_out, seed, "test"))
    model.fit_last_layer(Generated(model.draw, fitted, seed, "train", easiest=1.0))
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
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--fitted", type=int, default=1000, help="examples that the last layer is fitted to")
    parser.add_argument("--again", action="store_true", help="an encoder that is trained already: no easy examples")
    args = parser.parse_args()
    keep_memory()
    scores = pretrain(**vars(args))
    print(", ".join(f"{name} {value:.3f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
