"""Makes the default checkpoint from nothing: `make checkpoint`.

    python -m training.recipe training/configs/default_checkpoint.yaml

First, each part apart, at the same time: the language model from text and from pictures and recordings that are
told in words (`sketch`), the encoders to tell the same of real ones (`pretrain`). Then everything together, by
`training.finetune`'s own means. What is finished is skipped, what was broken off goes on.
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
    initial = work / "initial"
    if not (initial / DONE).exists():
        write_initial(initial, recipe["seed"])
        (initial / DONE).touch()
    _apart(file, recipe["apart"], work)
    current = _assemble(initial, {prefix: work / name for name, prefix in PREFIXES.items()}, work / "assembled")
    for number, stage in enumerate(recipe["together"], start=2):
        output = work / stage["name"]
        if not (output / DONE).exists():
            log.info("stage %s: %d steps", output.name, stage["training"]["max_steps"])
            train_stage(stage, current, output, recipe["seed"] + number)
            (output / DONE).touch()
        current = output
    return current


def _apart(file: Path, parts: dict[str, dict[str, Any]], work: Path) -> None:
    """One process a part, with a thread each: threads that wait for each other spin. The system shares the cores."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    for name, options in parts.items():
        if not (work / name / DONE).exists():
            command = [sys.executable, "-m", "training.pretrain", name, str(work / "initial"), str(work / name)]
            command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
            if name == LANGUAGE:
                command = [sys.executable, "-m", "training.recipe", str(file), "--work", str(work), "--only", name]
            running[name] = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    for name, process in running.items():
        if process.wait() != 0:
            raise SystemExit(f"training {name} failed; run the recipe again to go on")
        (work / name / DONE).touch()


def _assemble(initial: Path, parts: dict[str, Path], output: Path) -> Path:
    """Of each part the tensors that it trained."""
    if not (output / DONE).exists():
        tensors = {
            name: tensor
            for prefix, part in parts.items()
            for name, tensor in load_file(part / "model.safetensors").items()
            if name.startswith(prefix)
        }
        save_released(initial, output, tensors, dtype=torch.float32)
        (output / DONE).touch()
    return output


def train_stage(stage: dict[str, Any], start: Path, output: Path, seed: int) -> None:
    """One mixture of tasks. `everything` trains all parts, else the language model alone; the token embeddings stay as
    they were drawn: the encoders learn to give them, and may do so meanwhile."""
    options = {"output_dir": str(output), "use_cpu": not torch.cuda.is_available(), "seed": seed} | stage["training"]
    dtype = stage.get("save_dtype", "float32")
    data = DataArguments(checkpoint=str(start), save_dtype=dtype, muon=True, ema_decay=stage["ema_decay"])
    switches = ("vision_encoder", "vision_proj", "audio_encoder", "audio_proj")
    tuning = TuningArguments(tune_embeddings=False, **{f"tune_{part}": stage["everything"] for part in switches})
    data, tuning, training = finish(data, tuning, FinetuneArguments(**options))
    size = training.max_steps * training.per_device_train_batch_size
    world = World(stage["tasks"], size, seed, Featuriser.from_pretrained(start))
    train_on(world, None, data, tuning, training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/checkpoint"), help="stages, resumed from there")
    parser.add_argument("--only", choices=[LANGUAGE], help="this part, from the initial checkpoint")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_memory()
    if args.only:
        recipe = yaml.safe_load(args.recipe.read_text("utf-8"))
        train_stage(recipe["apart"][args.only], args.work / "initial", args.work / args.only, recipe["seed"] + 1)
    else:
        print(run(args.recipe, args.work))


if __name__ == "__main__":
    main()
