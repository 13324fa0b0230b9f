"""Norms under autocast: they give what the products that follow would make of their outputs, once for all of these.

A norm gives float32, which autocast turns into bfloat16 anew for queries, keys and values; on the way back three
gradients are turned into float32 and added up there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from pipeline.model.decoder import RMSNorm

from .muon import LAYERS


def cast_norms_once(model: nn.Module) -> None:
    """Of the layers' norms, whose outputs products take alone."""
    for name, module in model.named_modules():
        if any(part in name for part in LAYERS):
            if isinstance(module, nn.LayerNorm):
                module.register_forward_hook(lambda _, __, out: _half(out))
            elif isinstance(module, RMSNorm):
                module.forward = partial(_normed, module, module.forward)  # type: ignore[method-assign]


def _half(x: torch.Tensor) -> torch.Tensor:
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _normed(module: RMSNorm, own: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return _half(own(x))
    out: torch.Tensor = _RMSNorm.apply(x, module.weight, module.eps, torch.get_autocast_dtype("cpu"))  # type: ignore[no-untyped-call]
    return out


class _RMSNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) · weight. torch has no kernel of it for CPUs, and keeps and walks through float32 for
    each of its terms."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        """x [T, D] and weight [D] -> [T, D] of `dtype`"""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed.to(dtype), scale, weight)
        ctx.dtype = x.dtype
        return normed.mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        normed, scale, weight = ctx.saved_tensors
        shared = grads[0] * normed
        to_weight = shared.sum(0, dtype=torch.float32)
        mean = torch.mv(shared, (weight / len(weight)).to(shared.dtype))[:, None].float()
        to_x = (grads[0] * weight.to(shared.dtype)).float()
        to_x.addcmul_(normed.float(), mean, value=-1).mul_(scale)
        return to_x.to(ctx.dtype), to_weight.to(weight.dtype), None, None
