from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from deployments.codec import PackedEmbeds, pack, unpack
from pipeline.types import AudioEmbeds, ImageEmbeds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_picture(dtype: torch.dtype) -> None:
    embeds = ImageEmbeds(torch.randn(3, 4, 8).to(dtype), (2, 1))
    back = unpack(pickle.loads(pickle.dumps(pack(embeds))))
    assert isinstance(back, ImageEmbeds)
    assert back.grid == (2, 1)
    assert back.embeds.dtype == dtype
    assert torch.equal(back.embeds, embeds.embeds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recording(dtype: torch.dtype) -> None:
    embeds = AudioEmbeds(torch.randn(9, 8).to(dtype), (5, 4))
    back = unpack(pack(embeds))
    assert isinstance(back, AudioEmbeds)
    assert back.spans == (5, 4)
    assert back.embeds.dtype == dtype
    assert torch.equal(back.embeds, embeds.embeds)


def test_picture_of_one_slice_has_no_grid() -> None:
    back = unpack(pack(ImageEmbeds(torch.zeros(1, 4, 8), None)))
    assert isinstance(back, ImageEmbeds)
    assert back.grid is None


def test_what_travels_is_contiguous_numpy() -> None:
    view = torch.randn(4, 3, 8).transpose(0, 1).requires_grad_()
    packed = pack(ImageEmbeds(view, None))
    assert type(packed.array) is np.ndarray
    assert packed.array.flags.c_contiguous
    assert packed.array.dtype == np.float32
    assert pack(AudioEmbeds(torch.ones(2, 2, dtype=torch.bfloat16), (2,))).array.dtype == np.int16


def test_a_read_only_view_is_copied() -> None:
    array = np.ones((2, 4), np.float32)
    array.flags.writeable = False  # as the object store hands it out
    back = unpack(PackedEmbeds("audio", array, False, spans=(2,)))
    back.embeds.fill_(7)
    assert array.max() == 1


def test_special_values_survive() -> None:
    values = torch.tensor([[float("inf"), -0.0, float("nan"), 1e-40]]).to(torch.bfloat16)
    packed = pack(AudioEmbeds(values, (1,)))
    assert torch.equal(unpack(packed).embeds.view(torch.int16), values.view(torch.int16))
