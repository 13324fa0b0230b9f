"""A run goes on from its last checkpoint, and only with the settings that it began with."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import MegrezError
from pipeline.fingerprint import fingerprint

from .arguments import DataArguments, FinetuneArguments
from .saving import write_whole
from .trainer import checkpoints, last_checkpoint
from .tuning import TuningArguments

log = logging.getLogger(__name__)

SETTINGS_FILE = "settings.yaml"

TRAINER_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "seed",
    "data_seed",
)
"""What of the trainer's must not change on the way. How long it goes on may."""

FILES = ("train_files", "eval_files")
FREE = ("save_dtype", "attention", "media_root", "max_pixels", "export")
"""What of ours may change: it says how, not what is learnt."""


def refuse_other_run(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> None:
    """Raises MegrezError where going on would mix two runs: the one in `output_dir` was begun with other settings or
    records. Changes nothing, so that it can be asked before the records are read."""
    output = Path(training.output_dir)
    if output.resolve() == Path(data.checkpoint).resolve():
        raise MegrezError(f"output_dir {output} is the checkpoint to start from; choose another")
    begun = _begun(output)
    missing = any(not Path(file).is_file() for name in FILES for file in getattr(data, name))  # told by who reads it
    if begun is None or not training.resume or missing:
        return
    settings = _settings(data, tuning, training)
    advice = "choose another output_dir, or begin anew with --resume false"
    _refuse_other(output, begun, settings, begun.keys() | settings.keys(), advice)


def refuse_other_model(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> None:
    """Raises MegrezError where the run in `output_dir` trains another model, or cuts pictures otherwise, than these
    arguments say; what it learns from, and how, is not asked."""
    output = Path(training.output_dir)
    if begun := _begun(output):
        settings = _settings(replace(data, train_files=[], eval_files=[]), tuning, training)
        model = {"checkpoint", "max_slice_nums", "scale_resolution", *(field.name for field in fields(tuning))}
        _refuse_other(output, begun, settings, model, "give those")


def _refuse_other(
    output: Path, begun: dict[str, Any], settings: dict[str, Any], names: Iterable[str], advice: str
) -> None:
    """Raises MegrezError, with advice, where some of these settings differ."""
    if other := sorted(name for name in names if begun.get(name) != settings.get(name)):
        raise MegrezError(f"{output} holds a run that was begun with other settings ({', '.join(other)}): {advice}")


def resume_from(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> Path | None:
    """The checkpoint in `output_dir` to go on from, if any. With `resume` off, those that are there are removed.

    Raises MegrezError as `refuse_other_run` does.
    """
    refuse_other_run(data, tuning, training)
    output = Path(training.output_dir)
    last, file = last_checkpoint(output), output / SETTINGS_FILE
    if last and not training.resume:
        if training.should_save:
            log.info("removing the checkpoints of an earlier run in %s", output)
            for old in checkpoints(output):
                shutil.rmtree(old)
        last = None
    if last and not any(last.glob("global_step*" if training.deepspeed else "scheduler.pt")):
        raise MegrezError(
            f"{last} holds weights without the optimizer's state (save_only_model, or DeepSpeed only before or only "
            "now), from which the same run can't go on: choose another output_dir, or begin anew with --resume false"
        )
    if last and not file.exists():
        log.warning("%s is missing: nobody knows with which settings %s was begun", file, output)
    if training.should_save and not (last and file.exists()):
        output.mkdir(parents=True, exist_ok=True)
        write_whole(file, yaml.safe_dump(_settings(data, tuning, training)))  # other processes may be reading
    return last


def _begun(output: Path) -> dict[str, Any] | None:
    """The settings of the run that has left a checkpoint in `output`, if they are known."""
    file = output / SETTINGS_FILE
    if last_checkpoint(output) is None or not file.exists():
        return None
    return yaml.safe_load(file.read_text("utf-8"))


def _settings(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> dict[str, Any]:
    """The checkpoint and the files of records are known by what they hold, wherever they lie."""
    settings = {name: value for name, value in (asdict(data) | asdict(tuning)).items() if name not in FREE}
    for name in FILES:
        settings[name] = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in settings[name]]
    settings["checkpoint"] = fingerprint(Path(data.checkpoint))
    settings["deepspeed"] = True if training.deepspeed else None  # as where it isn't written down
    values = {name: getattr(training, name) for name in TRAINER_SETTINGS}
    return settings | {n: v if isinstance(v, int | float) else str(getattr(v, "value", v)) for n, v in values.items()}
