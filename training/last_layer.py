"""The last layer of an encoder, fitted to the embeds that a decoder wants: sums of token embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

RIDGE = 1e-4
"""Added to the inputs' products, as a share of their mean square."""


@torch.no_grad()
def least_squares(inputs: torch.Tensor, wanted: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """inputs [n, C], wanted [n, D] -> float64 [C, D], the matrix that takes the ones nearest to the others (ridge
    regression, Hoerl and Kennard, 1970).

    groups: int [n]; each counts as much as another, however many it has: nine in ten embeds say nothing.
    """
    x, y = inputs.double(), wanted.double()
    weight = (1.0 / groups.bincount().double())[groups][:, None]
    products = x.T @ (x * weight)
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=x.dtype)
    return torch.linalg.solve(products + ridge, x.T @ (y * weight))


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What the module gives meanwhile, call by call."""
    given: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        given.append(output)

    handle = module.register_forward_hook(keep)
    try:
        yield given
    finally:
        handle.remove()
