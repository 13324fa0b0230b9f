"""Patches behind the first layer."""

from __future__ import annotations

import torch

from training.whitening import whiten_patches


def test_patches_are_whitened() -> None:
    """Real patches are mostly brightness; behind the first layer each component has the same variance."""
    torch.manual_seed(0)
    mixing = torch.randn(12, 12) * torch.logspace(0, -1, 12)[:, None]
    patches = torch.randn(4000, 12) @ mixing + 3
    kernel, bias = torch.randn(8, 3, 2, 2), torch.zeros(8)
    kernel[6:] = 0  # rows that carry the place
    whiten_patches(kernel, bias, patches)
    seen = patches @ kernel.flatten(1).T + bias
    torch.testing.assert_close(seen[:, :6].mean(0), torch.zeros(6), rtol=0, atol=1e-3)
    torch.testing.assert_close(seen[:, :6].T.cov(), torch.eye(6), rtol=0, atol=0.02)
    assert not kernel[6:].any()
    assert not bias[6:].any()
