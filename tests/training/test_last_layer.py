"""The last layer of an encoder is fitted to what its embeds are wanted to be."""

from __future__ import annotations

import torch
from torch import nn

from training.last_layer import least_squares, outputs_of


def test_the_matrix_that_made_them_is_found() -> None:
    torch.manual_seed(0)
    inputs, matrix = torch.randn(300, 8), torch.randn(8, 5)
    found = least_squares(inputs, inputs @ matrix, torch.arange(300) % 3)
    torch.testing.assert_close(found.float(), matrix, rtol=1e-2, atol=1e-3)


def test_groups_count_alike_however_many_they_have() -> None:
    """One input, wanted to be 1 in 90 cases and 0 in 10: the mean of the groups, not of the cases."""
    inputs, groups = torch.ones(100, 1), (torch.arange(100) >= 90).long()
    found = least_squares(inputs, 1.0 - groups[:, None], groups)
    torch.testing.assert_close(found, torch.tensor([[0.5]], dtype=torch.float64), rtol=1e-3, atol=0)


def test_inputs_that_are_one_another_are_no_obstacle() -> None:
    column = torch.randn(50, 1, generator=torch.manual_seed(0))
    found = least_squares(column.expand(50, 3), column, torch.zeros(50, dtype=torch.long))
    torch.testing.assert_close(found.sum().float(), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_outputs_are_kept_only_meanwhile() -> None:
    module = nn.Linear(2, 2)
    with outputs_of(module) as given:
        first = module(torch.ones(1, 2))
    module(torch.zeros(1, 2))
    assert len(given) == 1
    torch.testing.assert_close(given[0], first)
