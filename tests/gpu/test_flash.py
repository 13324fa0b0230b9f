"""On a GPU: flash-attn against torch, and the whole model in bfloat16. Run with `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import Omni
from pipeline.model.attention import FlashAttention, Packing, PagedBatch, TorchAttention
from tests.golden import DATA

pytestmark = pytest.mark.gpu


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


@pytest.mark.parametrize(("heads", "size"), [(16, 72), (20, 64)])  # SigLIP's and Whisper's
def test_varlen(heads: int, size: int) -> None:
    packing = Packing((1024, 999, 999, 3))
    q, k, v = (draw(sum(packing.lengths), heads, size) for _ in range(3))
    torch.testing.assert_close(
        FlashAttention().varlen(q, k, v, packing), TorchAttention().varlen(q, k, v, packing), rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize("query_lens", [(300, 1, 17), (1, 1, 1)])
def test_paged(query_lens: tuple[int, ...]) -> None:
    """The language model's shape: 40 heads over 10 KV heads of 64."""
    context_lens = (300, 700, 257)
    keys, values = draw(12, 256, 10, 64), draw(12, 256, 10, 64)
    tables = torch.tensor([[3, 7, 0], [1, 11, 5], [4, 2, 0]], dtype=torch.int32, device="cuda")
    batch = PagedBatch(query_lens, context_lens, tables, torch.empty(0, dtype=torch.long, device="cuda"))
    q = draw(sum(query_lens), 40, 64)
    torch.testing.assert_close(
        FlashAttention().paged(q, keys, values, batch), TorchAttention().paged(q, keys, values, batch),
        rtol=0.02, atol=0.02,
    )  # fmt: skip


def test_the_model_on_a_gpu_is_near_the_one_on_cpu(golden_path: Path, golden_omni: Omni) -> None:
    gpu = Omni.from_pretrained(golden_path, device="cuda", dtype="bfloat16", attention="flash")
    for encode in ("encode_image", "encode_audio"):
        source = DATA / ("sample_image.jpg" if encode == "encode_image" else "sample_audio.mp3")
        near, exact = getattr(gpu, encode)(source).float().cpu(), getattr(golden_omni, encode)(source)
        assert (near - exact).norm() / exact.norm() < 0.05
    assert gpu.chat([{"role": "user", "content": {"text": "hi", "image": DATA / "sample_image.jpg"}}], max_tokens=8)
