"""transformers' Trainer over our batches, and a callback that keeps an average of the weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

log = logging.getLogger(__name__)

EMA_FILE = "ema.safetensors"


class OmniTrainer(Trainer):
    """Groups by the lengths that our datasets know; everything else is the library's."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        data: Any = train_dataset or self.train_dataset
        args = self.args
        if args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.seed if args.data_seed is None else args.data_seed
        return ByLength(batch, data.lengths, seed, lambda: int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        return SequentialSampler(eval_dataset)  # type: ignore[arg-type]


class ByLength(LengthGroupedSampler):
    """The library's, in an order that depends on the seed and the epoch alone: one broken off goes on in it."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        return super().__iter__()


def last_checkpoint(output: Path) -> Path | None:
    """The latest that was written to its end, where the trainer's state is last: a run may be killed while it saves."""
    whole = [path for path in checkpoints(output) if (path / "trainer_state.json").exists()]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def checkpoints(output: Path) -> list[Path]:
    """Those that a run has left on its way, and one that it was just saving."""
    return [path for path in output.glob("checkpoint-[0-9]*") if path.is_dir()]


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
            self.average = load_file(file, device=str(args.device))
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

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / EMA_FILE
            save_file(self.average, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").replace(file)  # whole, whenever the run is killed

    @torch.no_grad()
    def apply(self, model: torch.nn.Module) -> None:
        """Puts the average into the model."""
        for name, parameter in model.named_parameters():
            if name in self.average:
                parameter.copy_(self.average[name])
