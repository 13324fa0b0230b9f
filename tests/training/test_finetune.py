"""Fine-tuning from the command line to a checkpoint that is served."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.model
from pipeline.config import ModelConfig
from pipeline.omni import Omni
from tests.conftest import ROOT
from training.arguments import FinetuneArguments, parse
from training.average import EMA_FILE
from training.export import image_processor, save
from training.features import Featuriser
from training.finetune import gathered, main
from training.model import OmniForTraining
from training.records import SHOWN, read_records

from .runs import ALL_PARTS, history, run, weights, words, write_varied
from .tiny import PREPROCESSOR, assistant, user, write_picture, write_records, write_tone

QUESTION = "What do you see and hear?"


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    return write_varied(tmp_path, 12)


def test_what_is_written_is_served(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    run(tiny_path, varied, output, max_steps=2, max_slice_nums=2, save_dtype="bfloat16")
    before, after = load_file(tiny_path / "model.safetensors"), weights(output)
    assert {name: tensor.shape for name, tensor in after.items()} == {name: t.shape for name, t in before.items()}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name].bfloat16(), after[name])}
    assert changed == {"llm"}
    for file in tiny_path.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "preprocessor_config.json":
            assert (output / file.name).read_bytes() == file.read_bytes()
    assert json.loads((output / "preprocessor_config.json").read_text()) == PREPROCESSOR | {"max_slice_nums": 2}
    omni = Omni.from_pretrained(output)
    answer = omni.chat([user(QUESTION, tmp_path / "red.png", tmp_path / "low.wav")], max_tokens=4, ignore_eos=True)
    assert isinstance(answer, str)


def test_answers_are_learned_word_for_word(tiny_path: Path, tmp_path: Path) -> None:
    """One question four times: only the picture and the recording tell what the answer is."""
    pictures = {
        "a red square": write_picture(tmp_path / "red.png", "red"),
        "one green shape": write_picture(tmp_path / "green.png", "green", (60, 90)),
    }
    tones = {
        "a low tone": write_tone(tmp_path / "low.wav", 250),
        "then a high one": write_tone(tmp_path / "high.wav", 1500, 0.6),
    }
    cases = [(pictures[seen], tones[heard], f"{seen}, {heard}") for seen, heard in product(pictures, tones)]
    records = [[user(QUESTION, picture, sound), assistant(answer)] for picture, sound, answer in cases]
    run(
        tiny_path,
        write_records(tmp_path / "records.jsonl", records),
        tmp_path / "output",
        max_steps=50,
        learning_rate=3e-3,
        per_device_train_batch_size=4,
        save_dtype="bfloat16",
        save_only_model=True,
        **ALL_PARTS,
    )
    omni = Omni.from_pretrained(tmp_path / "output")
    for picture, sound, answer in cases:
        said = omni.chat([user(QUESTION, tmp_path / picture, tmp_path / sound)], max_tokens=40)
        assert said == answer


def test_adapters_are_merged_and_kept(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    run(tiny_path, varied, output, max_steps=2, use_lora=True, lora_r=4, learning_rate=1e-2)
    before, after = weights(tiny_path), weights(output)
    assert after.keys() == before.keys()
    kinds = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert kinds == {"q_proj", "k_proj", "v_proj"}
    adapter = json.loads((output / "adapter" / "adapter_config.json").read_text())
    assert (adapter["peft_type"], adapter["r"], adapter["base_model_name_or_path"]) == ("LORA", 4, str(tiny_path))
    assert len(load_file(output / "adapter" / "adapter_model.safetensors")) == 2 * 3 * 2  # layers, targets, halves
    for saved in ("model.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"):
        assert (output / saved).stat().st_mode == varied.stat().st_mode, saved


def test_an_average_is_written_in_place_of_the_last_weights(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    run(tiny_path, varied, output, max_steps=3, learning_rate=1e-3, ema_decay=0.9)
    average, last = (load_file(output / "checkpoint-3" / name) for name in (EMA_FILE, "model.safetensors"))
    assert {name for name in last if name.startswith("llm.")} == set(average)
    for name, tensor in weights(output).items():
        assert torch.equal(tensor, average.get(name, last[name]))
        assert torch.equal(tensor, last[name]) == (name not in average)


def test_how_pictures_are_cut_is_kept_where_it_is_read(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """The released file has it in a section of its own, which counts more than the same key outside."""
    source, output = shutil.copytree(tiny_path, tmp_path / "source"), tmp_path / "output"
    (source / "preprocessor_config.json").write_text(json.dumps({"image_processor": PREPROCESSOR}))
    run(source, varied, output, max_steps=1, max_slice_nums=2)
    found = ModelConfig.from_pretrained(output).image_processor
    assert found == replace(ModelConfig.from_pretrained(source).image_processor, max_slice_nums=2)


def test_smaller_slices_are_more(tiny_path: Path, tmp_path: Path) -> None:
    """A picture of 112 x 112 is one slice, but of slices of 56 it takes an overview and four."""
    picture = write_picture(tmp_path / "red.png", "red")
    records = read_records(write_records(tmp_path / "records.jsonl", [[user("x", picture), assistant("y")]]))
    found = {}
    for side in (None, 56):
        options = {} if side is None else {"scale_resolution": side}
        data = parse(words(checkpoint=tiny_path, **options))[0]
        featurise = Featuriser.from_pretrained(tiny_path, image_processor(data))
        found[side] = featurise(records[0].conversations).slice_sizes
    assert found == {None: [(8, 8)], 56: [(4, 4)] * 5}
    run(tiny_path, tmp_path / "records.jsonl", tmp_path / "output", max_steps=1, scale_resolution=56)
    assert ModelConfig.from_pretrained(tmp_path / "output").image_processor.scale_resolution == 56


@pytest.mark.parametrize("way", ["share", "files", "by length", "the best"])
def test_held_out_records_are_evaluated(way: str, tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    held = write_records(tmp_path / "held.jsonl", [[user("x"), assistant("y")]])
    options = {
        "share": {"eval_share": 0.25, "save_steps": 2},
        "files": {"eval_files": held, "eval_steps": 2},
        "by length": {"eval_share": 0.25, "save_steps": 2, "train_sampling_strategy": "group_by_length"},
        "the best": {"eval_share": 0.25, "save_steps": 2, "save_strategy": "best", "metric_for_best_model": "loss"},
    }[way]
    run(tiny_path, varied, tmp_path / "output", max_steps=4, **options)
    evaluated = {entry["step"]: entry["eval_loss"] for entry in history(tmp_path / "output") if "eval_loss" in entry}
    assert evaluated.keys() == {2, 4}
    assert evaluated[4] != evaluated[2]
    assert all(0 < loss < 20 for loss in evaluated.values())


def test_recomputing_layers_changes_nothing(
    tiny_path: Path, varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"max_steps": 3, "learning_rate": 1e-3, **ALL_PARTS}
    recomputed, library = [], training.model.checkpoint
    monkeypatch.setattr(training.model, "checkpoint", lambda *args, **kw: recomputed.append(1) or library(*args, **kw))
    plain = run(tiny_path, varied, tmp_path / "plain", **options)
    assert not recomputed
    assert run(tiny_path, varied, tmp_path / "again", activation_checkpointing=True, **options) == pytest.approx(plain)
    assert len(recomputed) >= 3 * 3 * 2  # steps, stages, layers


def test_tensorboard_gets_the_losses(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    losses = run(tiny_path, varied, tmp_path / "output", max_steps=2, report_to="tensorboard")
    (folder,) = {path.parent for path in (tmp_path / "output").rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    assert [event.value for event in events] == pytest.approx(losses, rel=1e-4)


def test_pieces_that_processes_hold_are_gathered_to_be_saved(tiny_path: Path, tmp_path: Path) -> None:
    """With DeepSpeed, which isn't here: its trainer is stood in for, by one that has other tensors than the model."""
    line = words(checkpoint=tiny_path, train_files="none", output_dir=tmp_path / "output")
    data, tuning, arguments = parse(line)
    model = OmniForTraining.from_pretrained(tiny_path)
    whole = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    accelerator = SimpleNamespace(get_state_dict=lambda engine: whole if engine == "engine" else {})
    trainer: Any = SimpleNamespace(is_deepspeed_enabled=True, accelerator=accelerator, deepspeed="engine")
    save(model, gathered(trainer, model), data, tuning, Path(arguments.output_dir))
    saved = weights(tmp_path / "output")
    assert saved.keys() == whole.keys()
    assert all(torch.equal(saved[name], whole[name]) for name in whole)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_configurations_leave_to_the_trainer_what_it_knows(stage: int) -> None:
    config = json.loads((ROOT / f"training/configs/zero{stage}.json").read_text())
    zero = config.pop("zero_optimization")
    assert zero["stage"] == stage
    assert zero.get("stage3_gather_16bit_weights_on_model_save", stage == 2)  # else the end can't be saved
    assert config.pop("bf16") == {"enabled": "auto"}
    fields = {field.name for field in dataclasses.fields(FinetuneArguments)}
    assert set(config.values()) == {"auto"}
    assert "gradient_accumulation_steps" in fields & set(config)


def test_bfloat16_is_computed_in(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    exact = run(tiny_path, varied, tmp_path / "exact", max_steps=2)
    rough = run(tiny_path, varied, tmp_path / "rough", max_steps=2, precision="bfloat16")
    assert rough != pytest.approx(exact, rel=1e-6)
    assert rough == pytest.approx(exact, rel=1e-2)


def test_nothing_is_trained_when_something_is_wrong(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"conversations": []}\n')
    good = write_records(tmp_path / "good.jsonl", [[user("x"), assistant("y")]])
    cases = [
        ({"checkpoint": tmp_path / "none", "train_files": good}, f"checkpoint {tmp_path / 'none'}: no such directory"),
        ({"train_files": good}, "checkpoint names no directory"),
        ({"checkpoint": tiny_path}, "train_files names no file"),
        ({"checkpoint": tiny_path, "train_files": tmp_path / "bad.jsonl"}, "bad.jsonl:1: "),
        ({"checkpoint": tiny_path, "train_files": good, "tune_llm": False}, "every part is frozen"),
        ({"checkpoint": tiny_path, "train_files": good, "train_weights": [1, 2]}, "1 data files need as many weights"),
        ({"checkpoint": tiny_path, "train_files": good, "eval_share": 0.5}, "leaves nothing to train on"),
    ]
    for options, said in cases:
        with pytest.raises(SystemExit) as caught:
            main(words(output_dir=tmp_path / "output", **options))
        assert str(caught.value).startswith("error: ")
        assert said in str(caught.value)
    assert not (tmp_path / "output").exists()


def test_one_process_never_drives_several_gpus(
    tiny_path: Path, varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library would cut packed batches to pieces."""
    monkeypatch.setattr(FinetuneArguments, "n_gpu", 2)
    with pytest.raises(SystemExit, match="torchrun --nproc_per_node 2"):
        main(words(checkpoint=tiny_path, train_files=varied, output_dir=tmp_path / "output"))


def test_what_a_stage_does_not_use_is_kept(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """A last layer that serving drops, and a table of ids: other programs may read them."""
    source, output = tmp_path / "source", tmp_path / "output"
    shutil.copytree(tiny_path, source)
    config = json.loads((source / "config.json").read_text()) | {"drop_vision_last_layer": True}
    (source / "config.json").write_text(json.dumps(config))
    ids = {"vision.vpm.embeddings.position_ids": torch.arange(4)[None]}
    save_file(load_file(source / "model.safetensors") | ids, source / "model.safetensors")
    run(source, varied, output, max_steps=2, **ALL_PARTS)
    before, after = load_file(source / "model.safetensors"), weights(output)
    assert after.keys() == before.keys()
    last = [name for name in before if name.startswith("vision.vpm.encoder.layers.1.")]
    assert len(last) == 16
    assert all(torch.equal(before[name], after[name]) for name in [*last, *ids])
    assert after["vision.vpm.embeddings.position_ids"].dtype == torch.int64
    assert not torch.equal(before["vision.resampler.proj"], after["vision.resampler.proj"])


def test_problems_of_all_files_are_told_together(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"conversations": []}\n')
    (tmp_path / "bad.png").write_bytes(b"nothing")
    undecodable = write_records(tmp_path / "train.jsonl", [[user("x", image="bad.png"), assistant("y")]])
    options = {"train_files": [undecodable, tmp_path / "none.jsonl"], "eval_files": tmp_path / "bad.jsonl"}
    with pytest.raises(SystemExit) as caught:
        main(words(checkpoint=tiny_path, output_dir=tmp_path / "output", **options))
    said = str(caught.value)
    assert "3 problem(s)" in said
    for place in ("train.jsonl:1: conversations[0].content.image", "none.jsonl: no such file", "bad.jsonl:1: "):
        assert f"{tmp_path}/{place}" in said


def test_long_lists_are_written(tiny_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of problems, and of what is too long."""
    output = tmp_path / "output"
    missing = [[user("x", image=f"{i}.png"), assistant("y")] for i in range(SHOWN + 2)]
    line = words(checkpoint=tiny_path, train_files=write_records(tmp_path / "bad.jsonl", missing), output_dir=output)
    with pytest.raises(SystemExit, match=f"and 2 more, all of them in {output}/problems.txt$"):
        main(line)
    problems = (output / "problems.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in problems] == [f"{tmp_path}/bad.jsonl:{i + 1}" for i in range(SHOWN + 2)]
    long = [[user("x"), assistant("y")], *[[user("long " * 200), assistant("y")]] * (SHOWN + 1)]
    with caplog.at_level("WARNING"):
        run(tiny_path, write_records(tmp_path / "long.jsonl", long), output, max_steps=1, model_max_length=100)
    assert f"all {SHOWN + 1} that are left out are named in {output}/left_out.txt" in caplog.messages
    left_out = (output / "left_out.txt").read_text().splitlines()
    assert [line.split(" (")[0] for line in left_out] == [f"{tmp_path}/long.jsonl:{i + 2}" for i in range(SHOWN + 1)]
