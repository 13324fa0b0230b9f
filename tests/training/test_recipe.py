"""The whole recipe of the default checkpoint, a few steps of each stage: it runs, resumes and can be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import Omni
from training.recipe import run
from training.synthetic.world import example

from .synthetic.needs_fonts import needs_fonts

pytestmark = [needs_fonts, pytest.mark.timeout(600)]


def recipe(second_stage_steps: int) -> dict[str, Any]:
    def stage(name: str, tasks: dict[str, float], steps: int, encoders: bool, dtype: str) -> dict[str, Any]:
        training = {
            "max_steps": steps, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "save_steps": 1,
            "logging_steps": 1, "dataloader_num_workers": 0,
        }  # fmt: skip
        return {
            "name": name, "tasks": tasks, "tune_encoders": encoders, "ema_decay": 0.9, "save_dtype": dtype,
            "training": training,
        }  # fmt: skip

    options = {"steps": 2, "batch": 2, "workers": 0, "held-out": 2}
    return {
        "seed": 3,
        "encoders": {"vision": options, "audio": options},
        "language": [stage("words", {"sum": 1.0, "sketched text": 1.0}, 2, False, "float32")],
        "everything": [stage("world", {"speech": 1.0, "shapes": 1.0}, second_stage_steps, True, "bfloat16")],
    }


def test_a_few_steps_of_every_stage_make_a_checkpoint_that_answers(tmp_path: Path) -> None:
    first = run(recipe(2), tmp_path)
    assert first == tmp_path / "world"
    before = (tmp_path / "words" / "model.safetensors").stat().st_mtime_ns
    (first / "DONE").unlink()

    again = run(recipe(3), tmp_path)  # goes on in the second stage, and leaves the first alone
    assert (tmp_path / "words" / "model.safetensors").stat().st_mtime_ns == before
    assert (again / "checkpoint-3").is_dir()

    omni = Omni.from_pretrained(again)
    question = example("shapes", 0, 0, "test").conversations[:1]
    assert isinstance(omni.chat(question, temperature=0, max_tokens=4), str)
