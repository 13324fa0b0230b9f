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
from transformers import Trainer

from pipeline.errors import MegrezError
from tests.conftest import ROOT
from training.arguments import parse
from training.average import EMA_FILE
from training.collator import collate
from training.features import Featuriser
from training.finetune import finetune
from training.model import IGNORED, OmniForTraining
from training.records import read_records
from training.trainer import ByLength, Shuffled

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
    if options.get("ema_decay"):  # as a full disk may leave it
        (tmp_path / "broken" / "checkpoint-6" / "trainer_state.json").write_text("")
    with caplog.at_level("INFO"):
        resumed = run(tiny_path, varied, tmp_path / "broken", save_steps=3, **STEPS, **options)
    assert f"going on from {tmp_path}/broken/checkpoint-3" in caplog.messages
    assert len(whole) == 6
    assert resumed == pytest.approx(whole, rel=1e-6)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "broken"), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 3], ids=["with an epoch", "within an epoch"])
def test_a_run_that_is_done_is_written_again(tiny_path: Path, varied: Path, tmp_path: Path, steps: int) -> None:
    """The last step was made, but a run may have been killed before it wrote the result."""
    output, options = tmp_path / "output", {**STEPS, "max_steps": steps, "ema_decay": 0.5}
    first = run(tiny_path, varied, output, **options)
    done = weights(output)
    (output / "model.safetensors").unlink()
    assert run(tiny_path, varied, output, **options) == first
    assert_same(weights(output), done, rtol=0, atol=0)
    assert [path.name for path in output.glob("checkpoint-*")] == [f"checkpoint-{steps}"]


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


@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_two_processes_are_one_with_twice_the_batch(order: str, tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """Though they see different numbers of tokens, one may have no picture when the other has, and 17 items are not
    to be divided by 4: in the last step of an epoch only one has any."""
    write_varied(tmp_path, 17)
    options = STEPS | {"eval_files": varied, "ema_decay": 0.5, "train_sampling_strategy": order}
    sizes = [{f"per_device_{kind}_batch_size": size for kind in ("train", "eval")} for size in (4, 2)]
    one, output = run(tiny_path, varied, tmp_path / "one", **sizes[0], **options), tmp_path / "two"
    line = words(checkpoint=tiny_path, train_files=varied, output_dir=output, **sizes[1], **options)
    launch("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "training.finetune", *line)
    assert losses(output) == pytest.approx(one, rel=1e-4)
    evaluated = [[e["eval_loss"] for e in history(tmp_path / name) if "eval_loss" in e] for name in ("one", "two")]
    assert len(evaluated[0]) == 1
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


@pytest.mark.parametrize("decay", [0, 0.9])
def test_what_is_evaluated_is_what_is_saved(decay: float, tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    """Every token counts once, however the records lie in batches, and whatever training leaves out."""
    output, featurise = tmp_path / "output", Featuriser.from_pretrained(tiny_path)
    options = {**STEPS, "eval_files": varied, "per_device_eval_batch_size": 3, "ema_decay": decay}
    options["dataloader_drop_last"] = bool(decay)
    said = finetune(*parse(words(checkpoint=tiny_path, train_files=varied, output_dir=output, **options)))
    model = OmniForTraining.from_pretrained(output).eval()
    total, count = 0.0, 0
    for record in read_records(varied, None):
        batch = collate([featurise(record.conversations)])
        with torch.inference_mode():
            total += model(**batch, num_items_in_batch=1)["loss"].item()
        count += int((batch["labels"] != IGNORED).sum())
    assert said["eval_loss"] == pytest.approx(total / count, rel=1e-5)


def test_weights_alone_are_no_run_to_go_on_with(tiny_path: Path, varied: Path, tmp_path: Path) -> None:
    options = {**STEPS, "max_steps": 2, "save_only_model": True}
    run(tiny_path, varied, tmp_path / "output", **options)
    line = words(checkpoint=tiny_path, train_files=varied, output_dir=tmp_path / "output", **options)
    with pytest.raises(MegrezError, match=r"checkpoint-2 holds weights without the optimizer's state .*--resume false"):
        finetune(*parse(line))
    assert len(run(tiny_path, varied, tmp_path / "output", resume=False, **options)) == 2


def test_an_average_is_saved_before_its_checkpoint_counts(
    tiny_path: Path, varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(trainer: Trainer, *_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(Trainer, "_save_checkpoint", killed)
    with pytest.raises(InterruptedError):
        run(tiny_path, varied, tmp_path / "output", ema_decay=0.5, **STEPS)
    assert [path.name for path in (tmp_path / "output" / "checkpoint-6").iterdir()] == [EMA_FILE]


def test_random_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(Shuffled(40, seed, lambda epoch=epoch: epoch)) for seed, epoch in ((0, 0), (0, 1), (5, 0), (0, 0))}
    assert len(orders) == 3
    assert all(sorted(order) == list(range(40)) for order in orders)


def test_order_by_length_depends_on_seed_and_epoch() -> None:
    lengths = [10 * (i % 7) + i % 3 for i in range(40)]

    def order(seed: int, epoch: int) -> list[int]:
        return list(ByLength(4, lengths, seed, lambda: epoch))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (5, 0))}) == 3
    assert sorted(order(0, 0)) == list(range(40))
    spread = [max(part) - min(part) for part in zip(*[iter(lengths[i] for i in order(0, 0))] * 4, strict=True)]
    assert sum(spread) / len(spread) < 25  # 45 in random order
