"""Generated examples as a data set."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from .example import Split


@dataclass
class Generated(Dataset[Any]):
    """Example i is drawn from the seed and i: nothing is stored, and a resumed run sees the same.

    In training the first half grows in difficulty from `easiest` to 1.
    """

    draw: Callable[[random.Random, Split, float], Any]  # the last is the difficulty
    size: int
    seed: int
    split: Split
    easiest: float = 0.0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(self.size))

    def __getitem__(self, index: int) -> Any:
        grown = min(2 * index / self.size, 1.0) if self.split == "train" else 1.0
        difficulty = self.easiest + (1 - self.easiest) * grown
        return self.draw(random.Random(f"{self.seed} {self.split} {index}"), self.split, difficulty)
