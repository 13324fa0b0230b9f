"""transformers' Trainer over our batches, each item once an epoch in however many processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from .average import ExponentialAverage
from .features import Features
from .model import IGNORED


class OmniTrainer(Trainer):
    """The library's, but for the order of the items, what fills up the last batch, and the loss of an evaluation.

    `average` is saved with each checkpoint.
    """

    average: ExponentialAverage | None = None

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """The library asks whether a run is done after a step: one that was done already would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        data: Any = train_dataset or self.train_dataset
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed

        def epoch() -> int:
            return int(self.state.epoch or 0)

        order: Sampler[int]
        if args.train_sampling_strategy == "group_by_length":
            batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            order = ByLength(batch, data.lengths, seed, epoch)
        elif args.train_sampling_strategy == "random":
            order = Shuffled(len(data), seed, epoch)
        else:
            order = SequentialSampler(data)
        return order if args.dataloader_drop_last else self._filled(order, len(data), args.train_batch_size)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        data: Any = eval_dataset
        return self._filled(SequentialSampler(data), len(data), self.args.eval_batch_size)

    def _filled(self, order: Sampler[int], count: int, batch: int) -> Sampler[int]:
        """Several processes take a batch each in turn. Where the last of them had none left, accelerate would give
        them items from the beginning once more. And dataloader_drop_last, which is for training, would leave out what
        is held out."""
        args = self.args
        uneven = args.world_size > 1 or args.dataloader_drop_last
        return FilledUp(order, count, batch * args.world_size) if uneven else order

    def _get_dataloader(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Any:
        return super()._get_dataloader(WithBlank(dataset), *args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        """Keeps the sum of the losses and the number of tokens, for `evaluation_loop`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            total = model(**inputs, num_items_in_batch=1)["loss"]
        self._evaluated += torch.stack([total.double(), (inputs["labels"] != IGNORED).sum()])
        return total, None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """The mean loss of all tokens, whatever their batches and processes."""
        self._evaluated = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        result = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = self.accelerator.reduce(self._evaluated).tolist()
        result.metrics[f"{metric_key_prefix}_loss"] = total / max(count, 1)
        return result

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The average first: once the library has written its state, the checkpoint counts as whole."""
        if self.average and self.args.should_save:
            self.average.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(model, trial)


class Shuffled(Sampler[int]):
    """`count` items in an order that depends on the seed and the epoch alone: one broken off goes on in it."""

    def __init__(self, count: int, seed: int, epoch: Callable[[], int]) -> None:
        self.count, self.seed, self.epoch = count, seed, epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed + self.epoch()))
        return iter(order.tolist())


class ByLength(LengthGroupedSampler):
    """The library's, in such an order."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        return super().__iter__()


BLANK = -1
"""The item that teaches nothing."""


class FilledUp(Sampler[int]):
    """Another order, and then BLANK up to a multiple."""

    def __init__(self, order: Sampler[int], count: int, multiple: int) -> None:
        self.order, self.blanks, self.count = order, -count % multiple, count

    def __len__(self) -> int:
        return self.count + self.blanks

    def __iter__(self) -> Iterator[int]:
        yield from self.order
        yield from [BLANK] * self.blanks


class WithBlank(Dataset[Features]):
    """A dataset that has BLANK as well: a token without a label."""

    def __init__(self, data: Any) -> None:
        self.data, self.lengths = data, getattr(data, "lengths", None)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Features:
        return Features([0], [IGNORED], [], [], [], [], []) if index == BLANK else self.data[index]


def last_checkpoint(output: Path) -> Path | None:
    return next(reversed(whole_checkpoints(output)), None)


def whole_checkpoints(output: Path) -> list[Path]:
    """In order, those that were written to their end, where the trainer's state is last: a run may be killed while it
    saves."""
    whole = [path for path in checkpoints(output) if _is_json(path / "trainer_state.json")]
    return sorted(whole, key=lambda path: int(path.name.split("-")[1]))


def _is_json(file: Path) -> bool:
    """There, and whole: not what a full disk has left of it."""
    try:
        return bool(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return False


def checkpoints(output: Path) -> list[Path]:
    """Those that a run has left on its way, and one that it was just saving."""
    return [path for path in output.glob("checkpoint-[0-9]*") if path.is_dir() and path.name[11:].isdigit()]
