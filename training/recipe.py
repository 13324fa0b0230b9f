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
import signal
import subprocess
import sys
import time
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
"""A file beside what is finished: the settings it was made by."""

POLL_SECONDS = 0.2

LANGUAGE = "language"
PREFIXES = {LANGUAGE: "llm.", "vision": "vision.", "audio": "audio."}


def run(file: Path, work: Path) -> Path:
    """Runs what is left of a recipe in `work`; the directory of the last stage's checkpoint.

    Raises SystemExit when a part fails, and when something in `work` was made by other settings.
    """
    recipe = yaml.safe_load(file.read_text("utf-8"))
    seed, current = recipe["seed"], work / "initial"
    if not _is_done(current, seed):
        write_initial(current, seed)
        _done(current, seed)
    for number, parts in enumerate(recipe["apart"]):
        _apart(file, number, recipe, current, work / parts["name"])
        current = _assemble(current, work / parts["name"])
    for number, stage in enumerate(recipe["together"], start=1):
        output = work / stage["name"]
        if not _is_done(output, stage):
            log.info("stage %s: %d steps", output.name, stage["training"]["max_steps"])
            train_stage(stage, current, output, seed + number)
            _done(output, stage)
        current = output
    return current


def _is_done(output: Path, settings: Any) -> bool:
    file = output / DONE
    if file.exists() and yaml.safe_load(file.read_text("utf-8")) != settings:
        raise SystemExit(
            f"{output} was made by other settings: remove it and what came after it, or choose another --work"
        )
    return file.exists()


def _done(output: Path, settings: Any) -> None:
    (output / DONE).write_text(yaml.safe_dump(settings), encoding="utf-8")


def _apart(file: Path, number: int, recipe: dict[str, Any], start: Path, output: Path) -> None:
    """One process a part, with a thread each: threads that wait for each other spin. The system shares the cores."""
    parts = recipe["apart"][number]
    running: dict[str, subprocess.Popen[bytes]] = {}
    for name in PREFIXES:
        if _is_done(output / name, parts[name]):
            continue
        if name == LANGUAGE:
            command = ["training.recipe", str(file), "--language", str(number)]
            command += ["--start", str(start), "--work", str(output)]
        else:
            command = ["training.pretrain", name, str(start), str(output / name)]
            command += ["--seed", str(recipe["seed"] + number), *(["--again"] if number else [])]
            command += [word for key, value in parts[name].items() for word in (f"--{key}", str(value))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        running[name] = subprocess.Popen([sys.executable, "-m", *command], env=environment)
    failed = _wait_for(running)
    for name, process in running.items():
        if process.returncode == 0:
            _done(output / name, parts[name])
    if failed:
        raise SystemExit(f"training {failed} failed; run the recipe again to go on")


def _wait_for(running: dict[str, subprocess.Popen[bytes]]) -> str | None:
    """Until all have ended, or one has failed: its name. None is left running, whatever happens."""
    try:
        while any(process.poll() is None for process in running.values()):
            failed = [name for name, process in running.items() if process.poll()]
            if failed:
                return failed[0]
            time.sleep(POLL_SECONDS)
        return next((name for name, process in running.items() if process.returncode), None)
    finally:
        for process in running.values():
            process.terminate()  # nothing to one that has ended
        for process in running.values():
            process.wait()


def _assemble(start: Path, parts: Path) -> Path:
    """Of each part the tensors that it trained."""
    output = parts / "assembled"
    if not _is_done(output, list(PREFIXES)):
        tensors = {
            name: tensor
            for part, prefix in PREFIXES.items()
            for name, tensor in load_file(parts / part / "model.safetensors").items()
            if name.startswith(prefix)
        }
        save_released(start, output, tensors, dtype=torch.float32)
        _done(output, list(PREFIXES))
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
    parser.add_argument("--output", type=Path, help="a directory that gets what was made, in bfloat16")
    parser.add_argument("--language", type=int, metavar="ROUND", help="the language model alone, in this round apart")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT", help="with --language: where it begins")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_memory()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the parts end with this program
    if args.language is not None:
        recipe = yaml.safe_load(args.recipe.read_text("utf-8"))
        stage, seed = recipe["apart"][args.language][LANGUAGE], recipe["seed"] + 10 * args.language
        train_stage(stage, args.start, args.work / LANGUAGE, seed)
        return
    made = run(args.recipe, args.work)
    if args.output:
        save_released(made, args.output, load_file(made / "model.safetensors"), dtype=torch.bfloat16)
    print(args.output or made)


if __name__ == "__main__":
    main()
