"""A run goes on with the settings that it began with, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from pipeline.fingerprint import fingerprint
from training.finetune import main

from .runs import run, words, write_varied
from .tiny import assistant, user, write_records

STEPS: dict[str, Any] = {"max_steps": 2, "save_steps": 1}


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    return write_varied(tmp_path, 6)


def test_other_settings_or_records_are_refused_and_named(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    run(tiny_path, varied, output, **STEPS)
    before = (output / "model.safetensors").read_bytes()
    other = write_records(tmp_path / "other.jsonl", [[user("x"), assistant("y")]])
    for changed, named in (
        ({"learning_rate": 1e-2}, "(learning_rate)"),
        ({"tune_audio_proj": True, "seed": 5}, "(seed, tune_audio_proj)"),
        ({"train_files": other}, "(train_files)"),
    ):
        options = {"checkpoint": tiny_path, "train_files": varied, "output_dir": output, **STEPS, **changed}
        with pytest.raises(SystemExit) as caught:
            main(words(**options))
        assert f"{output} holds a run that was begun with other settings {named}" in str(caught.value)
        assert "--resume false" in str(caught.value)
    assert (output / "model.safetensors").read_bytes() == before


def test_they_are_refused_before_records_are_read(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    output, other = tmp_path / "output", tmp_path / "other.jsonl"
    run(tiny_path, varied, output, **STEPS)
    options = {"checkpoint": tiny_path, "train_files": other, "output_dir": output, **STEPS}
    with pytest.raises(SystemExit, match="no such file"):  # not there at all
        main(words(**options))
    other.write_text("no JSON")
    with pytest.raises(SystemExit, match="begun with other settings"):
        main(words(**options))


def test_it_may_go_on_for_longer_and_from_other_places(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    run(tiny_path, varied, tmp_path / "output", **STEPS)
    moved = varied.rename(tmp_path / "moved.jsonl")
    elsewhere = shutil.copytree(tiny_path, tmp_path / "elsewhere")
    options = STEPS | {"max_steps": 3, "save_dtype": "bfloat16"}
    assert len(run(elsewhere, moved, tmp_path / "output", **options)) == 3


def test_other_weights_are_another_checkpoint(tiny_path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_path, tmp_path / "copy")
    before = fingerprint(tiny_path)
    assert fingerprint(copy) == before
    tensors = load_file(copy / "model.safetensors")
    save_file({name: tensor * 1.001 for name, tensor in tensors.items()}, copy / "model.safetensors")
    assert fingerprint(copy) != before


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json", "chat_template.jinja"])
def test_another_layout_of_prompts_is_another_checkpoint(tiny_path: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(tiny_path, tmp_path / "copy")
    before = fingerprint(copy)
    with (copy / name).open("a") as file:
        file.write(" ")
    assert fingerprint(copy) != before


def test_what_begins_anew_leaves_nothing_of_the_old_run(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """An older run's later checkpoint would be taken for the new one's."""
    output = tmp_path / "output"
    run(tiny_path, varied, output, **STEPS)
    run(tiny_path, varied, output, max_steps=1, save_steps=1, resume=False, learning_rate=1e-2)
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-1"]
    assert len(run(tiny_path, varied, output, max_steps=2, save_steps=1, learning_rate=1e-2)) == 2


def test_a_run_never_writes_over_what_it_starts_from(tiny_path: Path, varied: Path) -> None:
    with pytest.raises(SystemExit, match="is the checkpoint to start from; choose another"):
        main(words(checkpoint=tiny_path, train_files=varied, output_dir=tiny_path, **STEPS))


def test_without_the_optimizers_state_it_does_not_go_on(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """As a run with DeepSpeed leaves a checkpoint, where one without it would begin with a new optimizer."""
    output = tmp_path / "output"
    run(tiny_path, varied, output, **STEPS)
    (output / "checkpoint-2" / "scheduler.pt").unlink()
    (output / "checkpoint-2" / "global_step2").mkdir()
    options = {"checkpoint": tiny_path, "train_files": varied, "output_dir": output, **STEPS}
    with pytest.raises(SystemExit, match="holds weights without the optimizer's state"):
        main(words(**options))
    settings = yaml.safe_load((output / "settings.yaml").read_text())
    (output / "settings.yaml").write_text(yaml.safe_dump(settings | {"deepspeed": True}))
    with pytest.raises(SystemExit, match=r"begun with other settings \(deepspeed\)"):
        main(words(**options))
