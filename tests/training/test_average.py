"""An average of the weights, by hand: of a model of one number that counts up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from training.average import EMA_FILE, ExponentialAverage


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")


def steps(average: ExponentialAverage, model: nn.Module, arguments: TrainingArguments, count: range) -> None:
    for step in count:
        with torch.no_grad():
            model.weight += 1.0
        average.on_step_end(arguments, TrainerState(global_step=step), TrainerControl(), model=model)


def test_weights_of_the_past_decay(arguments: TrainingArguments) -> None:
    model, average, expected = nn.Linear(1, 1), ExponentialAverage(0.4), 0.0
    nn.init.zeros_(model.weight)
    model.bias.requires_grad_(False)
    average.on_train_begin(arguments, TrainerState(), TrainerControl(), model=model)
    steps(average, model, arguments, range(1, 9))
    for step in range(1, 9):
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.average.keys() == {"weight"}
    bias = model.bias.item()
    average.apply(model)
    assert model.weight.item() == pytest.approx(expected)
    assert model.bias.item() == bias


def test_it_is_saved_and_taken_up_again(arguments: TrainingArguments) -> None:
    model, average, state = nn.Linear(1, 1), ExponentialAverage(0.9), TrainerState(global_step=3)
    average.on_train_begin(arguments, TrainerState(), TrainerControl(), model=model)
    steps(average, model, arguments, range(1, 4))
    folder = Path(arguments.output_dir) / "checkpoint-3"
    average.save(folder)
    assert load_file(folder / EMA_FILE).keys() == {"weight", "bias"}
    again = ExponentialAverage(0.9)
    again.on_train_begin(arguments, state, TrainerControl(), model=model)
    torch.testing.assert_close(average.average, again.average, rtol=0, atol=0)
    assert again.average["weight"] != model.weight
