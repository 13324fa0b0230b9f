"""The whole recipe of the default checkpoint, a few steps of each stage: it runs, resumes and can be served."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline import Omni
from pipeline.errors import MegrezError
from pipeline.processing.tokenizer import Tokenizer
from training.processes import locked
from training.recipe import _begin, run
from training.stage import processes_for, train_stage
from training.synthetic.world import example
from training.trainer import OmniTrainer
from training.tuning import part_of

from .synthetic.needs_fonts import needs_fonts

pytestmark = pytest.mark.timeout(600)


def recipe(file: Path) -> Path:
    def stage(name: str, tasks: dict[str, float], steps: int, tunes: list[str], dtype: str) -> dict[str, Any]:
        training = {
            "per_device_train_batch_size": 2, "learning_rate": 1e-3, "save_steps": 1,
            "logging_steps": 1, "dataloader_num_workers": 0,
        }  # fmt: skip
        return {
            "name": name, "lessons": [{"steps": 1, "tasks": tasks}] * steps, "tunes": tunes, "ema_decay": 0.9,
            "save_dtype": dtype, "training": training,
        }  # fmt: skip

    options = {"steps": 2, "batch": 2, "workers": 0, "held-out": 2, "fitted": 8}
    media = {"spoken": 1.0}  # a picture and speech in every example
    language = stage("language", {"sum": 1.0, "sketched text": 1.0}, 2, [], "float32")
    listening = stage("listening", media, 2, ["vision_proj", "audio_proj"], "float32") | {"encoder_share": 0.25}
    encoders = ["vision_encoder", "vision_proj", "audio_encoder", "audio_proj"]
    world = stage("world", media, 2, encoders, "bfloat16")
    world["training"]["per_device_train_batch_size"] = 16  # two processes, where there are two cores
    parts = {"language": language, "vision": options, "audio": options}
    rounds = [{"name": "first", **parts}, {"name": "again", **parts}]
    file.write_text(yaml.safe_dump({"seed": 3, "apart": rounds, "together": [listening, world]}))
    return file


@needs_fonts
def test_a_few_steps_of_every_stage_make_a_checkpoint_that_answers(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    parts = [tmp_path / name / part for name in ("first", "again") for part in ("language", "vision", "audio")]
    first = run(recipe(file), tmp_path)
    assert first == tmp_path / "world"
    assert all((part / "DONE").exists() for part in parts)
    before = [(part / "model.safetensors").stat().st_mtime_ns for part in parts]
    (first / "DONE").unlink()

    made = [tmp_path / name for name in ("initial", "first/assembled", "again/assembled")]
    for before_round, after_round in pairwise(load_file(path / "model.safetensors") for path in made):
        kept = {name for name, tensor in before_round.items() if torch.equal(tensor.float(), after_round[name])}
        assert "llm.model.embed_tokens.weight" in kept  # the three parts have learnt to speak of the same
        assert not any("self_attn.q_proj" in name or "attn.query.weight" in name for name in kept)

    apart, listened, whole = (
        load_file(path / "model.safetensors") for path in (made[-1], tmp_path / "listening", first)
    )
    changed = {part_of(name) for name, tensor in apart.items() if not torch.equal(tensor, listened[name])}
    assert changed == {"tune_llm", "tune_vision_proj", "tune_audio_proj"}
    changed = {part_of(name) for name, tensor in listened.items() if not torch.equal(tensor.bfloat16(), whole[name])}
    assert changed == {
        f"tune_{part}" for part in ("llm", "vision_encoder", "vision_proj", "audio_encoder", "audio_proj")
    }
    saved = torch.load(tmp_path / "listening" / "checkpoint-2" / "optimizer.pt")
    rates = {group["initial_lr"] for group in saved["parts"][0]["param_groups"]}
    assert rates == {1e-3, 0.25e-3}  # of the language model, and the encoders' share

    shutil.rmtree(first / "checkpoint-2")  # as if it had been broken off
    again = run(file, tmp_path)  # goes on in the last stage, and leaves the parts alone
    assert [(part / "model.safetensors").stat().st_mtime_ns for part in parts] == before
    assert (again / "checkpoint-2").is_dir()

    omni = Omni.from_pretrained(again)
    question = example("shapes", 0, 0, "test").conversations[:1]
    assert isinstance(omni.chat(question, temperature=0, max_tokens=4), str)

    elsewhere = yaml.safe_load((tmp_path / "recipe.yaml").read_text()) | {"seed": 4}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(elsewhere))
    with pytest.raises(SystemExit, match=f"{tmp_path}/initial was begun by other settings or generators"):
        run(file, tmp_path)


def test_lessons_are_taken_in_their_order(mini_initial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each to its end, before the next begins; its sketches as noisy as it says, else as encoders are."""
    taught: list[tuple[str, float]] = []

    def watch(self: OmniTrainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        task = "speech" if tokenizer.special("audio_start") in inputs["input_ids"] else "sum"
        taught.append((task, model.noise))
        return torch.zeros(())

    tokenizer = Tokenizer(mini_initial)
    monkeypatch.setattr(OmniTrainer, "training_step", watch)
    stage = yaml.safe_load(recipe(tmp_path / "recipe.yaml").read_text())["apart"][0]["language"]
    stage["lessons"] = [{"steps": 3, "noise": 0.2, "tasks": {"sketched speech": 1}}, {"steps": 2, "tasks": {"sum": 1}}]
    train_stage(stage, mini_initial, tmp_path / "output", seed=0)
    assert taught == [("speech", 0.2)] * 3 + [("sum", 1.0)] * 2


@pytest.mark.parametrize(("batch", "cores", "expected"), [(32, 2, 2), (32, 3, 2), (24, 16, 3), (2, 2, 1), (16, 1, 1)])
def test_a_stages_batch_is_shared_evenly(
    batch: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces that are worth a process."""
    monkeypatch.setattr("training.stage.cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes_for({"training": {"per_device_train_batch_size": batch}}) == expected


@pytest.mark.parametrize("place", [("apart", 1, "language"), ("together", 0)])
def test_a_number_of_steps_that_the_lessons_would_overrule_is_refused(tmp_path: Path, place: tuple[Any, ...]) -> None:
    settings = yaml.safe_load(recipe(tmp_path / "recipe.yaml").read_text())
    stage = settings
    for key in place:
        stage = stage[key]
    stage["training"]["max_steps"] = 3
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(MegrezError, match="max_steps"):
        run(tmp_path / "recipe.yaml", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_directory_with_another_run_is_left_alone(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(SystemExit, match=f"is at work in {tmp_path}"):
        run(recipe(tmp_path / "recipe.yaml"), tmp_path)
    assert not (tmp_path / "initial").exists()


@pytest.mark.parametrize("changed", ["rate", "earlier", "seed"])
def test_what_was_begun_by_other_settings_is_refused(changed: str, tmp_path: Path) -> None:
    first = _begin(tmp_path / "first", {"steps": 1}, "")
    _begin(tmp_path / "second", {"rate": 1, "seed": 2}, first)
    assert _begin(tmp_path / "first", {"steps": 1}, "") == first
    if changed == "earlier":  # what was removed and is made anew makes what follows stale
        first = _begin(tmp_path / "another", {"steps": 2}, "")
    settings = {"rate": 2 if changed == "rate" else 1, "seed": 3 if changed == "seed" else 2}
    with pytest.raises(SystemExit, match=f"{tmp_path}/second was begun by other settings"):
        _begin(tmp_path / "second", settings, first)
