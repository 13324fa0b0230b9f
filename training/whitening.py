"""The first layer of the vision encoder, fitted to the pictures that it will see."""

from __future__ import annotations

import torch

WHITENING_FLOOR = 1e-3  # of the largest variance: what is rarer than this is mostly noise


@torch.no_grad()
def whiten_patches(kernel: torch.Tensor, bias: torch.Tensor, patches: torch.Tensor) -> None:
    """Sets the rows in use of a patch embedding [C, 3, patch, patch] to the principal components of real
    patches [n, 3 * patch²], each scaled to unit variance.

    Paper and ink differ in brightness far more than two letters do in shape: without this the first
    layer hands on little else (the first layer of Jordan's airbench94, 2024, is set in the same way).
    """
    used = int((kernel.flatten(1) != 0).any(1).sum())
    centred = (patches - patches.mean(0)).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    values, vectors = values.flip(0)[:used], vectors.flip(1)[:, :used]
    rows = (vectors / (values + WHITENING_FLOOR * values[0]).sqrt()).T
    kernel[:used] = rows.view(used, *kernel.shape[1:]).to(kernel)
    bias[:used] = -(rows @ patches.mean(0).double()).to(bias)
