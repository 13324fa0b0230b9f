"""Short runs of `training.finetune`, as its users start them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from training.finetune import main

from .tiny import assistant, user, write_picture, write_records, write_tone

ALL_PARTS = {f"tune_{part}": True for part in ("vision_encoder", "vision_proj", "llm", "audio_encoder", "audio_proj")}

# Exact on one thread, and without a picture of the progress.
QUIET = {"precision": "float32", "save_dtype": "float32", "report_to": "none", "disable_tqdm": True, "warmup_steps": 2}


def words(**options: Any) -> list[str]:
    """The command line of options over QUIET."""
    line: list[str] = []
    for name, value in (QUIET | options).items():
        line += [f"--{name}", *(str(v) for v in (value if isinstance(value, list) else [value]))]
    return line


def run(checkpoint: Path, train_file: Path, output: Path, **options: Any) -> list[float]:
    """Trains in this process; the loss of each step."""
    main(words(checkpoint=checkpoint, train_files=train_file, output_dir=output, **options))
    return losses(output)


def losses(output: Path) -> list[float]:
    """Of each step, by the last checkpoint on the way."""
    return [entry["loss"] for entry in history(output) if "loss" in entry]


def history(output: Path) -> list[dict[str, float]]:
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    entries: list[dict[str, float]] = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return entries


def weights(output: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(output / "model.safetensors")
    return tensors


def write_varied(folder: Path, count: int) -> Path:
    """Records of very different lengths; a few have a picture, a recording or both."""
    red, low = write_picture(folder / "red.png", "red", (200, 80)), write_tone(folder / "low.wav", 300, 0.7)
    records = []
    for number in range(count):
        media = {"image": red if number % 5 == 0 else None, "audio": low if number % 7 == 0 else None}
        records.append([user(f"item {number}", **media), assistant(f"{number} word " * (1 + 3 * (number % 4)))])
    return write_records(folder / "varied.jsonl", records)
