"""The attention that CPUs train with equals the reference."""

from __future__ import annotations

import pytest
import torch

from pipeline.model.attention import Packing, TorchAttention
from training.attention import MatmulAttention

LENGTHS = {
    "one": (7,),
    "equal": (6, 6, 6),
    "rising": (3, 5, 9),
    "falling": (9, 5, 3),
    "several groups": (40, 3, 90, 1, 41, 2),
    "single tokens": (1, 1, 1),
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
def test_values_and_gradients_are_the_references(
    lengths: tuple[int, ...], kv_heads: int, causal: bool, pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`in pieces`: scores of one sequence's heads at a time, and of a few positions."""
    if pieces:
        monkeypatch.setattr("training.attention.TILE", 1)
        monkeypatch.setattr("training.attention.BLOCK", 4)
    torch.manual_seed(0)
    total, packing = sum(lengths), Packing(lengths)
    inputs = [torch.randn(total, heads, 8, dtype=torch.float64) for heads in (4, kv_heads, kv_heads)]
    upstream = torch.randn(total, 4, 8, dtype=torch.float64)
    results = []
    for attention in (TorchAttention(), MatmulAttention()):
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        out = attention.varlen(q, k, v, packing, causal=causal)
        assert out.shape == q.shape
        results.append([out, *torch.autograd.grad(out, (q, k, v), upstream)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def test_neighbours_do_not_matter() -> None:
    """A sequence that is padded in its group gives what it gives alone."""
    torch.manual_seed(0)
    attention, lengths = MatmulAttention(), (20, 33, 25)
    q, k, v = torch.randn(3, sum(lengths), 2, 8)
    together = attention.varlen(q, k, v, Packing(lengths)).split(lengths)
    for part, *own in zip(together, *(x.split(lengths) for x in (q, k, v)), strict=True):
        torch.testing.assert_close(part, attention.varlen(*own, Packing((len(part),))))


def test_it_trains_after_it_was_used_without_gradients() -> None:
    """What it keeps for a moment may have been made then."""
    attention, packing = MatmulAttention(), Packing((4, 2))
    x = torch.randn(6, 2, 16)
    with torch.inference_mode():
        expected = attention.varlen(x, x, x, packing)
    leaf = x.clone().requires_grad_()
    out = attention.varlen(leaf, leaf, leaf, packing)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert leaf.grad is not None
    assert leaf.grad.any()
