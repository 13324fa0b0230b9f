"""Norms that are cast once give what they gave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.model.decoder import RMSNorm
from training.norms import cast_norms_once


def layered(norm: nn.Module, after: nn.Module) -> nn.Module:
    """A norm inside of a layer, as its name says, and one after the layers."""
    return nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList([norm]), "norm": after})})


def rms(width: int) -> RMSNorm:
    norm = RMSNorm(width, 1e-5)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


def cast(norm: nn.Module) -> nn.Module:
    cast_norms_once(layered(norm, nn.Identity()))
    return norm


def test_rms_norms_values_and_gradients() -> None:
    """Against torch's in float64, as near as bfloat16 is."""
    torch.manual_seed(0)
    norm, x, upstream = cast(rms(32)), torch.randn(50, 32) * 3, torch.randn(50, 32)
    with torch.autocast("cpu", torch.bfloat16):
        leaf = x.clone().requires_grad_()
        out = norm(leaf)
    found = torch.autograd.grad(out, (leaf, norm.weight), upstream.to(out.dtype))
    exact, weight = x.double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    wanted = nn.functional.rms_norm(exact, (32,), weight, 1e-5)
    expected = (wanted, *torch.autograd.grad(wanted, (exact, weight), upstream.double()))
    assert out.dtype == torch.bfloat16
    assert [each.dtype for each in found] == [torch.float32, torch.float32]
    for actual, value in zip((out, *found), expected, strict=True):
        error = (actual.double() - value).norm() / value.norm()
        assert error < 0.01


@pytest.mark.parametrize("norm", [rms(16), nn.LayerNorm(16)], ids=["RMSNorm", "LayerNorm"])
def test_cast_under_autocast_alone(norm: nn.Module) -> None:
    x = torch.randn(5, 16)
    expected = norm(x)
    changed = cast(norm)
    assert torch.equal(changed(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        out = changed(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.01, atol=0.01)


def test_norms_outside_of_layers_stay() -> None:
    after = nn.LayerNorm(16)
    cast_norms_once(layered(nn.Identity(), after))
    with torch.autocast("cpu", torch.bfloat16):
        assert after(torch.randn(5, 16)).dtype == torch.float32


def test_no_input_gives_none() -> None:
    """No labelled position: the last layer's second norm is given nothing."""
    norm = cast(rms(16))
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(torch.randn(0, 16, requires_grad=True))
    out.sum().backward()
    assert out.shape == (0, 16)
    assert norm.weight.grad is not None
    assert not norm.weight.grad.any()
