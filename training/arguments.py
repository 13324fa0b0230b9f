"""Everything that can be set: a YAML file, and the command line over it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from pipeline.errors import MegrezError

from .dataset import SPEECH_TEXT, check_weights
from .features import MAX_PIXELS
from .hardware import trains_in_bfloat16
from .tuning import TuningArguments

PRECISIONS = ("auto", "bfloat16", "float32")
INSTEAD = {"bf16": "precision", "fp16": "precision", "resume_from_checkpoint": "resume"}
"""transformers' options that ours replace."""

OF_ADAMW = ("optim", "adam_beta1", "adam_beta2", "adam_epsilon")
"""Settings of transformers that Muon has its own for."""


@dataclass
class DataArguments:
    """The records, and how they are laid out."""

    checkpoint: str = field(default="", metadata={"help": "directory in the released layout to start from"})
    train_files: list[str] = field(default_factory=list, metadata={"help": "JSON lines in the authors' format"})
    train_weights: list[float] = field(
        default_factory=list,
        metadata={"help": "how often each file counts in an epoch, else 1; under 1, a part of it, always the same"},
    )
    eval_files: list[str] = field(default_factory=list, metadata={"help": "files to evaluate on"})
    eval_share: float = field(default=0.0, metadata={"help": "part of the training records held out instead"})
    media_root: str | None = field(default=None, metadata={"help": "what media paths are relative to; else the file"})
    speech_text: str = field(
        default="keep",
        metadata={"help": "a text beside a recording is kept, dropped, or both: the record counts twice"},
    )
    max_slice_nums: int | None = field(default=None, metadata={"help": "most slices of a picture; else as before"})
    scale_resolution: int | None = field(default=None, metadata={"help": "side of a slice in pixels; else as before"})
    model_max_length: int | None = field(default=None, metadata={"help": "most tokens of a record; else the context"})
    max_pixels: int = field(default=MAX_PIXELS, metadata={"help": "most pixels of a picture as it lies in its file"})
    save_dtype: str = field(default="bfloat16", metadata={"help": "of the checkpoint that is written"})
    attention: str = field(default="auto", metadata={"help": "auto, torch or flash"})
    muon: bool = field(
        default=False, metadata={"help": "Muon at ten times learning_rate for the layers' matrices, AdamW for the rest"}
    )
    encoder_share: float = field(
        default=1.0, metadata={"help": "with muon, the encoders' learning rate as a share of learning_rate"}
    )
    export: str = field(
        default="", metadata={"help": "a checkpoint on the way in output_dir (checkpoint-500) to write as one to serve"}
    )
    ema_decay: float = field(
        default=0.0,
        metadata={
            "help": "an exponential average of the weights is saved, and evaluated at the end, instead of the last; "
            "0: off"
        },
    )


@dataclass
class FinetuneArguments(TrainingArguments):
    """transformers' TrainingArguments, with our defaults."""

    output_dir: str = field(default="build/finetuned", metadata={"help": "checkpoints on the way and the final one"})
    lr_scheduler_type: str = field(default="cosine")
    warmup_steps: float = field(default=0.03)  # under 1: a share of all steps
    learning_rate: float = field(default=1e-5)
    logging_steps: float = field(default=1)
    save_total_limit: int | None = field(default=2)
    report_to: str = field(default="tensorboard")
    precision: str = field(default="auto", metadata={"help": "auto (bfloat16 where it is fast), bfloat16 or float32"})
    resume: bool = field(default=True, metadata={"help": "go on from the last checkpoint in output_dir, if any"})

    def __post_init__(self) -> None:
        self.use_cpu: bool
        # transformers takes these up here, so afterwards would be too late.
        _one_of("precision", self.precision, PRECISIONS)
        self.bf16 = trains_in_bfloat16() if self.precision == "auto" else self.precision == "bfloat16"
        self.use_cpu = self.use_cpu or not torch.cuda.is_available()
        super().__post_init__()


Arguments = tuple[DataArguments, TuningArguments, FinetuneArguments]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse would print two hundred options and exit."""
        raise MegrezError(message)


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """`--config file.yaml` and options over it. Raises MegrezError for an unknown key or a bad value."""
    parser = _Parser((DataArguments, TuningArguments, FinetuneArguments), allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="YAML file with any of these options")
    config, rest = _config(argv)
    known = {action.dest for action in parser._actions} - {"help", "config"}
    unknown = sorted(set(config) - known)
    if unknown:
        raise MegrezError(f"unknown option(s) in the configuration: {', '.join(unknown)}")
    given = {word[2:].partition("=")[0].replace("-", "_") for word in rest if word.startswith("--")}
    for name in sorted(INSTEAD.keys() & (given | set(config))):
        raise MegrezError(f"{name} is not used: set {INSTEAD[name]} instead")
    parser.set_defaults(**{name: value for name, value in config.items() if value in (None, [])})
    try:
        data, tuning, training, _ = parser.parse_args_into_dataclasses([*_words(config), *rest])
    except ValueError as error:  # transformers' own checks
        raise MegrezError(str(error)) from None
    return finish(data, tuning, training)


def finish(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> Arguments:
    """Checks values, and sets what our data sets need of the trainer."""
    for name, value, allowed in (
        ("speech_text", data.speech_text, SPEECH_TEXT),
        ("save_dtype", data.save_dtype, PRECISIONS[1:]),
        ("attention", data.attention, ("auto", "torch", "flash")),
    ):
        _one_of(name, value, allowed)
    for name in ("max_slice_nums", "scale_resolution", "model_max_length", "max_pixels"):
        if (given := getattr(data, name)) is not None and given < 1:
            raise MegrezError(f"{name} must be positive, not {given}")
    wrong = (
        (not 0 <= data.ema_decay < 1 or not 0 <= data.eval_share < 1, "ema_decay and eval_share must be 0 to under 1"),
        (data.eval_share and data.eval_files, "eval_share would hold records out beside eval_files: choose one"),
        (data.encoder_share < 0, "encoder_share must be at least 0"),
        (data.encoder_share != 1 and not data.muon, "encoder_share needs muon: true"),
        (
            data.muon and any(getattr(training, f.name) != f.default for f in fields(training) if f.name in OF_ADAMW),
            f"muon has settings of its own: leave {', '.join(OF_ADAMW)} as they are",
        ),
        (
            training.deepspeed and (data.muon or data.ema_decay),
            "muon and ema_decay need whole tensors in each process; DeepSpeed has pieces of them",
        ),
        (
            data.ema_decay and training.load_best_model_at_end,
            "load_best_model_at_end chooses among weights that ema_decay replaces: choose one",
        ),
        (training.label_smoothing_factor, "label_smoothing_factor is not supported"),
        (tuning.use_lora and tuning.lora_r < 1, f"lora_r must be positive, not {tuning.lora_r}"),
    )
    for is_wrong, what in wrong:
        if is_wrong:
            raise MegrezError(what)
    if data.train_weights:
        check_weights(len(data.train_files), data.train_weights)
    if training.n_gpu > 1:
        raise MegrezError(
            f"one process sees {training.n_gpu} GPUs: start one a GPU with torchrun --nproc_per_node {training.n_gpu}, "
            "or choose one with CUDA_VISIBLE_DEVICES"
        )
    training.remove_unused_columns = False
    training.prediction_loss_only = True
    training.label_names = ["labels"]
    if training.ddp_find_unused_parameters is None:
        training.ddp_find_unused_parameters = False  # the model brings a gradient for each, always
    return data, tuning, training


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise MegrezError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _words(config: dict[str, Any]) -> list[str]:
    """A configuration as a command line has it: one way to read and check them both."""
    words: list[str] = []
    for name, value in config.items():
        if value not in (None, []):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(v) if isinstance(v, bool | dict) else str(v) for v in values)]
    return words


def _config(argv: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    known, rest = first.parse_known_args(argv)
    if known.config is None:
        return {}, rest
    if not known.config.is_file():
        raise MegrezError(f"{known.config}: no such configuration file")
    try:
        config = yaml.safe_load(known.config.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise MegrezError(f"{known.config}: not YAML ({error})") from None
    if not isinstance(config, dict):
        raise MegrezError(f"{known.config}: must hold options, one a line")
    return config, rest
