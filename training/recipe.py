"""Makes the default checkpoint from nothing: `make checkpoint`.

    python -m training.recipe training/configs/default_checkpoint.yaml

First, each part apart, at the same time: the language model from text and from pictures and recordings that are
told in words (`sketch`), the encoders to tell the same of real ones (`pretrain`); in rounds, that start from each
other. Then together, by `training.finetune`'s own means. What is finished is skipped, what was broken off goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
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
LANGUAGE = "language"
PREFIXES = {LANGUAGE: "llm.", "vision": "vision.", "audio": "audio."}


def run(file: Path, work: Path) -> Path:
    """Runs what is left of a recipe in `work`; the directory of the last stage's checkpoint."""
    recipe = yaml.safe_load(file.read_text("utf-8"))
    current = work / "initial"
    if not (current / DONE).exists():
        write_initial(current, recipe["seed"])
        (current / DONE).touch()
    for number, parts in enumerate(recipe["apart"]):
        _apart(file, number, parts, current, work / parts["name"])
        current = _assemble(current, work / parts["name"])
    for number, stage in enumerate(recipe["together"], start=1):
        output = work / stage["name"]
        if not (output / DONE).exists():
            log.info("stage %s: %d steps", output.name, stage["training"]["max_steps"])
            train_stage(stage, current, output, recipe["seed"] + number)
            (output / DONE).touch()
        current = output
    return current


def _apart(file: Path, number: int, parts: dict[str, Any], start: Path, output: Path) -> None:
    """One process a part, with a thread each: threads that wait for each other spin. The system shares the cores."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    for name in PREFIXES:
        if (output / name / DONE).exists():
            continue
        if name == LANGUAGE:
            command = ["training.recipe", str(file), "--language", str(number)]
            command += ["--start", str(start), "--work", str(output)]
        else:
            command = ["training.pretrain", name, str(start), str(output / name)]
            command += ["--seed", str(1 + number), *(["--again"] if number else [])]
            command += [word for key, value in parts[name].items() for word in (f"--{key}", str(value))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        running[name] = subprocess.Popen([sys.executable, "-m", *command], env=environment)
    for name, process in running.items():
        if process.wait() != 0:
            raise SystemExit(f"training {name} failed; run the recipe again to go on")
        (output / name / DONE).touch()


def _assemble(start: Path, parts: Path) -> Path:
    """Of each part the tensors that it trained."""
    output = parts / "assembled"
    if not (output / DONE).exists():
        tensors = {
            name: tensor
            for part, prefix in PREFIXES.items()
            for name, tensor in load_file(parts / part / "model.safetensors").items()
            if name.startswith(prefix)
        }
        save_released(start, output, tensors, dtype=torch.float32)
        (output / DONE).touch()
    return output


def train_stage(stage: dict[str, Any], start: Path, output: Path, seed: int) -> None:
    """One mixture of tasks for the language model, and for the parts of the encoders that the stage `tunes`. The token
    embeddings stay as they were drawn: the encoders learn to give them."""
    options = {"output_dir": str(output), "use_cpu": not torch.cuda.is_available(), "seed": seed} | stage["training"]
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
    size = training.max_steps * training.per_device_train_batch_size
    world = World(stage["tasks"], size, seed, Featuriser.from_pretrained(start))
    train_on(world, None, data, tuning, training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/checkpoint"), help="stages, resumed from there")
    parser.add_argument("--language", type=int, metavar="ROUND", help="the language model alone, in this round apart")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT", help="with --language: where it begins")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_memory()
    if args.language is not None:
        recipe = yaml.safe_load(args.recipe.read_text("utf-8"))
        stage, seed = recipe["apart"][args.language][LANGUAGE], recipe["seed"] + 10 * args.language
        train_stage(stage, args.start, args.work / LANGUAGE, seed)
    else:
        print(run(args.recipe, args.work))


if __name__ == "__main__":
    main()
