"""An exponential average of the weights, kept while they are trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

EMA_FILE = "ema.safetensors"


class ExponentialAverage(TrainerCallback):
    """After each step: average += (1 - decay) * (weights - average), for every trained tensor.

    It is saved with each checkpoint and taken up again from it. While few steps have been made the
    decay is smaller, (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / EMA_FILE
        if state.global_step and file.exists():
            # Not straight to the device: of several processes on CPUs each is on "cpu:0", which safetensors refuses.
            self.average = {name: tensor.to(args.device) for name, tensor in load_file(file).items()}
        else:
            if state.global_step:
                log.warning("%s is missing: the average of the weights begins anew", file)
            self.average = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        weight = 1 - min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        parameters = dict(model.named_parameters())
        names = list(self.average)
        torch._foreach_lerp_([self.average[n] for n in names], [parameters[n].detach() for n in names], weight)

    def save(self, folder: Path) -> None:
        """Writes it into a checkpoint's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.average, folder / EMA_FILE)

    @torch.no_grad()
    def apply(self, model: torch.nn.Module) -> None:
        """Puts the average into the model."""
        for name, parameter in model.named_parameters():
            if name in self.average:
                parameter.copy_(self.average[name])
