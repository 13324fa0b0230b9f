"""However the work is cut up, over time, steps or processes, the same is learned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.conftest import ROOT
from training.trainer import EMA_FILE, ByLength, ExponentialAverage

from .runs import ALL_PARTS, history, losses, run, weights, words, write_varied

STEPS = {"max_steps": 6, "learning_rate": 1e-3, **ALL_PARTS}


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    return write_varied(tmp_path, 16)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, msg=lambda said, name=name: f"{name}: {said}", **tolerance)


RESUMED: dict[str, dict[str, Any]] = {
    "in the first epoch": {"per_device_train_batch_size": 4},
    "in the second epoch": {"per_device_train_batch_size": 8},
    "between epochs": {"per_device_train_batch_size": 6},
    "with an average": {"per_device_train_batch_size": 4, "ema_decay": 0.9},
    "by length": {"per_device_train_batch_size": 8, "train_sampling_strategy": "group_by_length"},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "with Muon": {"per_device_train_batch_size": 4, "muon": True},
    "adapters with dropout": {"per_device_train_batch_size": 4, "use_lora": True, "lora_dropout": 0.3},
}


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
def test_a_run_that_was_broken_off_goes_on(
    options: dict[str, Any], tiny_path: Path, varied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From what a run leaves that was killed while it saved for the second time: the rest is as if nothing had been."""
    whole = run(tiny_path, varied, tmp_path / "whole", save_steps=3, **STEPS, **options)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "broken" / "checkpoint-3")
    (tmp_path / "broken" / "checkpoint-6").mkdir()
    shutil.copy(tmp_path / "whole" / "checkpoint-6" / "model.safetensors", tmp_path / "broken" / "checkpoint-6")
    with caplog.at_level("INFO"):
        resumed = run(tiny_path, varied, tmp_path / "broken", save_steps=3, **STEPS, **options)
    assert f"going on from {tmp_path}/broken/checkpoint-3" in caplog.messages
    assert len(whole) == 6
    assert resumed == pytest.approx(whole, rel=1e-6)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "broken"), rtol=1e-5, atol=1e-7)


def test_a_run_that_is_done_is_written_again(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """The last step was made, but a run may have been killed before it wrote the result."""
    output, options = tmp_path / "output", {**STEPS, "max_steps": 2}
    first = run(tiny_path, varied, output, **options)
    done = weights(output)
    (output / "model.safetensors").unlink()
    assert run(tiny_path, varied, output, **options) == first
    assert_same(weights(output), done, rtol=0, atol=0)


def test_a_run_can_begin_anew(tiny_path: Path, varied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {**STEPS, "max_steps": 2, "save_steps": 1}
    first = run(tiny_path, varied, tmp_path / "output", **options)
    with caplog.at_level("INFO"):
        again = run(tiny_path, varied, tmp_path / "output", resume=False, **options)
    assert again == first
    assert not any("going on" in message for message in caplog.messages)


def test_accumulated_steps_are_one_large_step(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    once = run(tiny_path, varied, tmp_path / "once", per_device_train_batch_size=4, **STEPS)
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert run(tiny_path, varied, tmp_path / "parts", **parts, **STEPS) == pytest.approx(once, rel=1e-4)
    assert_same(weights(tmp_path / "once"), weights(tmp_path / "parts"), rtol=1e-3, atol=2e-4)


def test_two_processes_are_one_with_twice_the_batch(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """Though they see different numbers of tokens, and one may have no picture when the other has."""
    options = STEPS | {"eval_files": varied, "ema_decay": 0.5}
    sizes = [{f"per_device_{kind}_batch_size": size for kind in ("train", "eval")} for size in (4, 2)]
    one, output = run(tiny_path, varied, tmp_path / "one", **sizes[0], **options), tmp_path / "two"
    line = words(checkpoint=tiny_path, train_files=varied, output_dir=output, **sizes[1], **options)
    launch("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "training.finetune", *line)
    assert losses(output) == pytest.approx(one, rel=1e-4)
    evaluated = [[e["eval_loss"] for e in history(tmp_path / name) if "eval_loss" in e] for name in ("one", "two")]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-3)
    assert_same(weights(tmp_path / "one"), weights(output), rtol=1e-3, atol=2e-4)


def launch(module: str, *line: str) -> None:
    """Runs a module as its users do; what it started ends with it, also when it hangs."""
    command, environment = [sys.executable, "-m", module, *line], os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        try:
            _, said = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends its workers, which a kill would leave
            raise
    assert process.returncode == 0, said[-4000:]


def test_order_by_length_depends_on_seed_and_epoch() -> None:
    lengths = [10 * (i % 7) + i % 3 for i in range(40)]

    def order(seed: int, epoch: int) -> list[int]:
        return list(ByLength(4, lengths, seed, lambda: epoch))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (5, 0))}) == 3
    assert sorted(order(0, 0)) == list(range(40))
    spread = [max(part) - min(part) for part in zip(*[iter(lengths[i] for i in order(0, 0))] * 4, strict=True)]
    assert sum(spread) / len(spread) < 25  # 45 in random order


class TestExponentialAverage:
    """By hand: a model of one number that counts up."""

    @pytest.fixture
    def arguments(self, tmp_path: Path) -> TrainingArguments:
        return TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")

    def steps(self, average: ExponentialAverage, model: nn.Module, arguments: TrainingArguments, count: range) -> None:
        for step in count:
            with torch.no_grad():
                model.weight += 1.0
            average.on_step_end(arguments, TrainerState(global_step=step), TrainerControl(), model=model)

    def test_weights_of_the_past_decay(self, arguments: TrainingArguments) -> None:
        model, average, expected = nn.Linear(1, 1), ExponentialAverage(0.4), 0.0
        nn.init.zeros_(model.weight)
        model.bias.requires_grad_(False)
        average.on_train_begin(arguments, TrainerState(), TrainerControl(), model=model)
        self.steps(average, model, arguments, range(1, 9))
        for step in range(1, 9):
            decay = min(0.4, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * step
        assert average.average.keys() == {"weight"}
        bias = model.bias.item()
        average.apply(model)
        assert model.weight.item() == pytest.approx(expected)
        assert model.bias.item() == bias

    def test_it_is_saved_and_taken_up_again(self, arguments: TrainingArguments) -> None:
        model, average, state = nn.Linear(1, 1), ExponentialAverage(0.9), TrainerState(global_step=3)
        average.on_train_begin(arguments, TrainerState(), TrainerControl(), model=model)
        self.steps(average, model, arguments, range(1, 4))
        folder = Path(arguments.output_dir) / "checkpoint-3"
        folder.mkdir()
        average.on_save(arguments, state, TrainerControl())
        assert load_file(folder / EMA_FILE).keys() == {"weight", "bias"}
        again = ExponentialAverage(0.9)
        again.on_train_begin(arguments, state, TrainerControl(), model=model)
        assert_same(average.average, again.average, rtol=0, atol=0)
        assert again.average["weight"] != model.weight
