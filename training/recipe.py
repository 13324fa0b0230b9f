"""Makes the default checkpoint from nothing: `make checkpoint`.

    python -m training.recipe training/configs/default_checkpoint.yaml

Stages run in order, each from where the last one left; one that is finished is skipped, one that was
broken off goes on. The language model learns first, from text and from pictures and recordings that are
told in words (`sketch`). Then the encoders learn alone, side by side, to tell the same of real ones
(`pretrain`), and in the end everything together, by `training.finetune`'s own means.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from .arguments import DataArguments, FinetuneArguments, finish
from .default_model import write_initial
from .features import Featuriser
from .finetune import train_on
from .hardware import keep_memory
from .saving import save_released
from .synthetic.world import World
from .tuning import TuningArguments

log = logging.getLogger(__name__)

DONE = "DONE"


def run(recipe: dict[str, Any], work: Path) -> Path:
    """Runs what is left of a recipe in `work`; the directory of the last stage's checkpoint."""
    initial = work / "initial"
    if not (initial / DONE).exists():
        write_initial(initial, recipe["seed"])
        (initial / DONE).touch()
    current = _stages(recipe["language"], initial, work, recipe["seed"])
    _pretrain(recipe["encoders"], current, work)
    current = _assemble(current, [work / name for name in recipe["encoders"]], work / "assembled")
    return _stages(recipe["everything"], current, work, recipe["seed"])


def _stages(stages: list[dict[str, Any]], current: Path, work: Path, seed: int) -> Path:
    for stage in stages:
        output = work / stage["name"]
        if not (output / DONE).exists():
            log.info("stage %s: %d steps", output.name, stage["training"]["max_steps"])
            _together(stage, current, output, zlib.crc32(f"{seed} {stage['name']}".encode()))
            (output / DONE).touch()
        current = output
    return current


def _pretrain(encoders: dict[str, dict[str, Any]], start: Path, work: Path) -> None:
    """One process an encoder, at the same time: each has half of the cores."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    threads = str(max((os.cpu_count() or 1) // len(encoders), 1))  # threads that wait for each other spin
    for name, options in encoders.items():
        if not (work / name / DONE).exists():
            command = [sys.executable, "-m", "training.pretrain", name, str(start), str(work / name)]
            command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
            running[name] = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": threads})
    for name, process in running.items():
        if process.wait() != 0:
            raise SystemExit(f"pre-training {name} failed; run the recipe again to go on")
        (work / name / DONE).touch()


def _assemble(start: Path, encoders: list[Path], output: Path) -> Path:
    if not (output / DONE).exists():
        tensors = load_file(start / "model.safetensors")
        for encoder in encoders:
            tensors |= load_file(encoder / "model.safetensors")
        save_released(start, output, tensors, dtype=torch.float32)
        (output / DONE).touch()
    return output


def _together(stage: dict[str, Any], start: Path, output: Path, seed: int) -> None:
    """One mixture of tasks; the encoders are trained, too, if the stage says so."""
    options = {"output_dir": str(output), "use_cpu": not torch.cuda.is_available(), "seed": seed} | stage["training"]
    dtype = stage.get("save_dtype", "float32")
    data = DataArguments(checkpoint=str(start), save_dtype=dtype, muon=True, ema_decay=stage["ema_decay"])
    encoders = stage["tune_encoders"]
    tuning = TuningArguments(
        tune_vision_encoder=encoders, tune_vision_proj=encoders, tune_audio_encoder=encoders, tune_audio_proj=encoders,
        tune_embeddings=encoders,
    )
    data, tuning, training = finish(data, tuning, FinetuneArguments(**options))
    size = training.max_steps * training.per_device_train_batch_size
    world = World(stage["tasks"], size, seed, Featuriser.from_pretrained(start))
    train_on(world, None, data, tuning, training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/checkpoint"), help="stages, resumed from there")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_memory()
    print(run(yaml.safe_load(args.recipe.read_text("utf-8")), args.work))


if __name__ == "__main__":
    main()
