"""Makes the default checkpoint from nothing: `make checkpoint`.

    python -m training.recipe training/configs/default_checkpoint.yaml

First, each part apart, as many at once as there are cores: the language model from text and from pictures and
recordings that are told in words (`sketch`), the encoders to tell the same of real ones (`pretrain`); in rounds, that
start from each other. Then together, by `training.finetune`'s own means. What is finished is skipped, what was broken
off goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from pipeline.errors import MegrezError

from .default_model import write_initial
from .hardware import cores, keep_memory
from .processes import locked, run_together
from .saving import save_released, write_whole
from .stage import processes_for, steps_of

log = logging.getLogger(__name__)

BEGUN, DONE = "begun.yaml", "DONE"
"""Files beside what was begun, with the settings it is made by, and beside what is finished."""

MADE_BY = (
    *("corpus.py", "tokenizer.py", "default_model.py", "features.py"),
    *("initialise.py", "initialise_tokens.py", "initialise_decoder.py"),
    *("sketch.py", "pretrain.py", "token_head.py", "last_layer.py", "audio_words.py"),
    *("vision_words.py", "vision_pictures.py", "vision_labels.py"),
)
"""Beside `synthetic` and its texts: where examples, vocabulary and first weights come from, and what encoders learn."""

LANGUAGE, STAGE = "language", "stage"
PREFIXES = {LANGUAGE: "llm.", "vision": "vision.", "audio": "audio."}


def run(file: Path, work: Path) -> Path:
    """Runs what is left of a recipe in `work`; the directory of the last stage's checkpoint.

    Raises MegrezError where the lessons would overrule a setting, and SystemExit when a part fails, when something in
    `work` was begun by other settings, and when another run is at work there.
    """
    recipe = yaml.safe_load(file.read_text("utf-8"))
    for stage in (*(parts[LANGUAGE] for parts in recipe["apart"]), *recipe["together"]):
        if "max_steps" in stage["training"]:
            raise MegrezError(f"{file}: max_steps: a stage takes the steps of its lessons; change theirs instead")
    with locked(work) as lock:
        return _run(recipe, work, lock)


def _run(recipe: dict[str, Any], work: Path, lock: int) -> Path:
    seed, current = recipe["seed"], work / "initial"
    before = _begin(current, {"seed": seed, "generators": generators()}, "")
    if not (current / DONE).exists():
        write_initial(current, seed)
        (current / DONE).touch()
    for number, parts in enumerate(recipe["apart"]):
        before = _apart(number, recipe, current, work / parts["name"], before, lock)
        current = _assemble(current, work / parts["name"])
    for number, stage in enumerate(recipe["together"], start=1):
        output = work / stage["name"]
        before = _begin(output, {"seed": seed + number, STAGE: stage}, before)
        if not (output / DONE).exists():
            _stage(stage, current, output, seed + number, lock)
            (output / DONE).touch()
        current = output
    return current


def generators() -> str:
    """A digest of `synthetic` and MADE_BY."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    texts = [path for path in (here / "text").rglob("*") if path.is_file()]
    for file in sorted([*(here / "synthetic").glob("*.py"), *texts, *(here / name for name in MADE_BY)]):
        digest.update(f"{file.relative_to(here)} ".encode() + file.read_bytes())
    return digest.hexdigest()


def _begin(output: Path, settings: Any, before: str) -> str:
    """Writes down what `output` is made by, and after what; a digest of both.

    Raises SystemExit where it was begun by something else: going on would mix the two.
    """
    text = yaml.safe_dump({"settings": settings, "after": before})
    file = output / BEGUN
    if file.exists() and file.read_text("utf-8") != text:
        raise SystemExit(
            f"{output} was begun by other settings or generators of examples: remove it, or choose another --work"
        )
    if not file.exists():
        output.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _apart(number: int, recipe: dict[str, Any], start: Path, output: Path, before: str, lock: int) -> str:
    """One process a part, with a thread each: threads that wait for each other spin. And a core each: three on two took
    a fifth longer for the same steps. So the longest part comes first."""
    parts, seed = recipe["apart"][number], recipe["seed"] + number
    begun = [_begin(output / name, {"seed": seed, name: parts[name]}, before) for name in PREFIXES]
    commands: dict[str, list[str]] = {}
    for name in PREFIXES:
        if name == LANGUAGE:
            command = _stage_command(LANGUAGE, start, output / name, recipe["seed"] + 10 * number)
        else:
            command = ["training.pretrain", name, str(start), str(output / name)]
            command += ["--seed", str(seed), *(["--again"] if number else [])]
            command += [word for key, value in parts[name].items() for word in (f"--{key}", str(value))]
        if not (output / name / DONE).exists():
            commands[name] = [sys.executable, "-m", *command]
    codes = run_together(commands, lambda name: (output / name / DONE).touch(), lock, at_once=cores())
    ended = [name for name, code in codes.items() if code]
    if ended:
        failed = [name for name in ended if codes[name] != -signal.SIGTERM] or ended
        raise SystemExit(f"training {', '.join(failed)} failed; run the recipe again to go on")
    return hashlib.sha256("".join(begun).encode()).hexdigest()


def _assemble(start: Path, parts: Path) -> Path:
    """Of each part the tensors that it trained."""
    tensors = {
        name: tensor
        for part, prefix in PREFIXES.items()
        for name, tensor in load_file(parts / part / "model.safetensors").items()
        if name.startswith(prefix)
    }
    save_released(start, parts / "assembled", tensors, dtype=torch.float32)
    return parts / "assembled"


def _stage(stage: dict[str, Any], start: Path, output: Path, seed: int, lock: int) -> None:
    """In processes of its own, that share each batch."""
    command = _stage_command(STAGE, start, output, seed)
    if (count := processes_for(stage)) > 1:
        command = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "-m", *command]
    log.info("stage %s: %d steps, processes: %d", output.name, steps_of(stage), count)
    codes = run_together({output.name: [sys.executable, "-m", *command]}, lock=lock)
    if codes[output.name]:
        raise SystemExit(f"training {output.name} failed; run the recipe again to go on")


def _stage_command(part: str, start: Path, output: Path, seed: int) -> list[str]:
    """By the settings that `output` was begun with, not the recipe's file, which may be edited meanwhile."""
    return [
        "training.stage", str(output / BEGUN), part,
        "--seed", str(seed), "--checkpoint", str(start), "--output", str(output),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/checkpoint"), help="stages, resumed from there")
    parser.add_argument("--output", type=Path, help="a directory that gets what was made, in bfloat16")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_memory()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the parts end with this program
    try:
        made = run(args.recipe, args.work)
    except MegrezError as error:
        sys.exit(f"error: {error}")
    if args.output:
        save_released(made, args.output, load_file(made / "model.safetensors"), dtype=torch.bfloat16)
    print(args.output or made)


if __name__ == "__main__":
    main()
