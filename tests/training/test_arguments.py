"""A YAML file and the command line over it are read alike, and mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import MegrezError
from tests.conftest import ROOT
from training.arguments import Arguments, FinetuneArguments, parse
from training.finetune import main
from training.tuning import TuningArguments

CONFIGS = [file for file in sorted((ROOT / "training/configs").glob("*.yaml")) if "train_files" in file.read_text()]


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """`read(options, *command_line)`: the arguments of a YAML file with these options."""

    def read(options: dict[str, Any] | str, *line: str) -> Arguments:
        file = tmp_path / "config.yaml"
        file.write_text(options if isinstance(options, str) else yaml.safe_dump(options))
        return parse(["--config", str(file), "--report_to", "none", *line])

    return read


def test_yaml_sets_values_of_every_kind(read: Any) -> None:
    data, tuning, training = read(
        """
        checkpoint: some/where
        train_files: [a.jsonl, b.jsonl]
        train_weights: [1, 0.5]
        eval_files: []
        media_root: null
        ema_decay: 0.9
        tune_llm: no
        tune_vision_proj: yes
        lora_target_modules: [q_proj]
        learning_rate: 1e-3
        max_steps: -1
        save_total_limit: null
        lr_scheduler_kwargs: {num_cycles: 2}
        resume: false
        """
    )
    assert (data.checkpoint, data.train_files, data.train_weights) == ("some/where", ["a.jsonl", "b.jsonl"], [1.0, 0.5])
    assert (data.eval_files, data.media_root, data.ema_decay) == ([], None, 0.9)
    assert (tuning.tune_llm, tuning.tune_vision_proj, tuning.lora_target_modules) == (False, True, ["q_proj"])
    assert (training.learning_rate, training.max_steps, training.save_total_limit) == (1e-3, -1, None)
    assert (training.lr_scheduler_kwargs, training.resume) == ({"num_cycles": 2}, False)


def test_a_single_file_needs_no_brackets(read: Any) -> None:
    assert read({"train_files": "a.jsonl"})[0].train_files == ["a.jsonl"]


def test_the_command_line_wins(read: Any) -> None:
    data, tuning, training = read(
        {"train_files": ["a.jsonl", "b.jsonl"], "tune_llm": True, "max_steps": 5},
        *("--train_files", "c.jsonl", "--tune_llm", "false", "--max_steps", "7"),
    )
    assert (data.train_files, tuning.tune_llm, training.max_steps) == (["c.jsonl"], False, 7)


def test_what_is_left_out_has_its_default(read: Any) -> None:
    data, tuning, training = read({})
    switches = {name: value for name, value in vars(tuning).items() if name.startswith("tune_")}
    assert [name for name, on in switches.items() if on] == ["tune_llm", "tune_embeddings"]
    assert len(switches) == 6  # the authors' five, and the embeddings within the language model
    assert (data.speech_text, data.save_dtype, data.ema_decay) == ("keep", "bfloat16", 0.0)
    assert (training.learning_rate, training.lr_scheduler_type, training.resume) == (1e-5, "cosine", True)
    assert adapters(tuning) == (False, *AUTHORS_LORA)


AUTHORS_LORA = (64, 64, 0.05, ["q_proj", "k_proj", "v_proj"])


def adapters(tuning: TuningArguments) -> tuple[Any, ...]:
    return tuning.use_lora, tuning.lora_r, tuning.lora_alpha, tuning.lora_dropout, tuning.lora_target_modules


def test_adapters_are_the_authors() -> None:
    tuning = parse(["--config", str(ROOT / "training/configs/lora.yaml"), "--report_to", "none"])[1]
    assert adapters(tuning) == (True, *AUTHORS_LORA)


@pytest.mark.parametrize(("precision", "mixed"), [("float32", "no"), ("bfloat16", "bf16")])
def test_precision_reaches_the_trainer(precision: str, mixed: str, read: Any) -> None:
    training = read({"precision": precision, "use_cpu": True})[2]
    assert training.mixed_precision == mixed
    made = FinetuneArguments(precision=precision, use_cpu=True, report_to="none")
    assert made.mixed_precision == mixed


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_the_configurations_that_come_along_are_read(file: Path) -> None:
    data, _, _ = parse(["--config", str(file), "--precision", "float32", "--report_to", "none"])
    assert data.checkpoint
    assert data.train_files


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
BAD: dict[str, tuple[dict[str, Any] | str | None, str]] = {
    "unknown keys": ({"tune_lm": True, "speed": 9}, "unknown option(s) in the configuration: speed, tune_lm"),
    "help as a key": ({"help": True}, "unknown option(s) in the configuration: help"),
    "precision": ({"precision": "float16"}, "precision must be one of auto, bfloat16, float32, not 'float16'"),
    "save_dtype": ({"save_dtype": "auto"}, "save_dtype must be one of bfloat16, float32, not 'auto'"),
    "speech_text": ({"speech_text": "maybe"}, "speech_text must be one of keep, drop, both, not 'maybe'"),
    "ema_decay": ({"ema_decay": 1.0}, "ema_decay and eval_share must be"),
    "two ways to hold out": ({"eval_share": 0.1, "eval_files": "a"}, "eval_share would hold records out beside"),
    "slices": ({"max_slice_nums": 0}, "max_slice_nums must be positive, not 0"),
    "the side of a slice": ({"scale_resolution": -448}, "scale_resolution must be positive, not -448"),
    "pixels": ({"max_pixels": 0}, "max_pixels must be positive, not 0"),
    "length": ({"model_max_length": 0}, "model_max_length must be positive, not 0"),
    "attention": ({"attention": "fast"}, "attention must be one of auto, torch, flash, not 'fast'"),
    "bf16": ({"bf16": True}, "bf16 is not used: set precision instead"),
    "a checkpoint to resume": ({"resume_from_checkpoint": "x"}, "resume_from_checkpoint is not used: set resume"),
    "an average that isn't the best": ({"ema_decay": 0.9, **BEST}, "load_best_model_at_end chooses among weights"),
    "AdamW's settings": ({"muon": True, "adam_beta2": 0.95}, "muon has settings of its own: leave optim, adam_beta1"),
    "smoothed labels": ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is not supported"),
    "no rank": ({"use_lora": True, "lora_r": 0}, "lora_r must be positive, not 0"),
    "weights": ({"train_files": ["a", "b"], "train_weights": [1, 0]}, "2 data files need as many weights over 0"),
    "eval_share": ({"eval_share": -0.1}, "ema_decay and eval_share must be"),
    "encoder_share": ({"encoder_share": 0.1}, "encoder_share needs muon"),
    "a negative share": ({"encoder_share": -0.1, "muon": True}, "encoder_share must be at least 0"),
    "the library's own": ({"lr_scheduler_type": "sideways"}, "sideways"),
    "steps in halves": ({"max_steps": 2.5}, "max_steps/--max-steps: invalid int value: '2.5'"),
    "a number in words": ({"learning_rate": "small"}, "argument --learning_rate"),
    "a switch half on": ({"tune_llm": "perhaps"}, "argument --tune_llm"),
    "no file": (None, "none.yaml: no such configuration file"),
    "no YAML": ("a: [", "not YAML"),
    "a list": ("- a", "must hold options, one a line"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_a_mistake_is_named(options: dict[str, Any] | str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / ("none.yaml" if options is None else "config.yaml")
    if options is not None:
        file.write_text(options if isinstance(options, str) else yaml.safe_dump(options))
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(file)])
    assert str(stopped.value.code).startswith("error: ")
    assert said in str(stopped.value.code)


def test_an_option_that_ours_replace_is_named_on_the_command_line() -> None:
    for line in (["--bf16"], ["--bf16=false"], ["--resume-from-checkpoint", "x"]):
        with pytest.raises(MegrezError, match="is not used: set"):
            parse(["--report_to", "none", *line])


def test_unknown_options_are_named() -> None:
    with pytest.raises(MegrezError, match="--speed"):
        parse(["--report_to", "none", "--speed", "9"])
    with pytest.raises(MegrezError, match="--speech"):  # nor is one guessed from how it begins
        parse(["--report_to", "none", "--speech", "drop"])
