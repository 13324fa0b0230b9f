"""A device that has no memory: tensors on it have a shape, a type and a place, and no contents.

Whoever mixes devices, or asks on the host for what stands on the device, fails. flash-attn's stand-in is one that
checks what it is given and computes nothing.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "standin"


@cache
def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME)


@contextmanager
def fake_device() -> Iterator[torch.device]:
    _register()
    # Contents of tiny tensors would be remembered, and really moved to the device.
    with mock.patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0), FakeTensorMode():
        yield torch.device(NAME)


@contextmanager
def answers(token: int) -> Iterator[list[int]]:
    """Lets the host ask by `tolist`, where every number is `token`; how many numbers it asked for, each time."""
    asked: list[int] = []

    def tolist(self: torch.Tensor) -> list[int]:
        assert self.dim() == 1
        asked.append(len(self))
        return [token] * len(self)

    with mock.patch.object(FakeTensor, "tolist", tolist):
        yield asked


def flash_attn() -> types.ModuleType:
    def on_the_device(*tensors: torch.Tensor) -> None:
        assert {t.device.type for t in tensors} == {NAME}, [t.device for t in tensors]

    def lengths(tensor: torch.Tensor, count: int) -> None:
        assert tensor.dtype == torch.int32
        assert tensor.shape == (count,)

    def flash_attn_with_kvcache(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, cache_seqlens: Any, block_table: Any, causal: bool
    ) -> torch.Tensor:
        on_the_device(q, k, v, cache_seqlens, block_table)
        lengths(cache_seqlens, len(q))
        assert causal
        assert block_table.shape[0] == len(q)
        assert q.shape[1] == 1
        return torch.empty_like(q)

    def flash_attn_varlen_func(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        query_ends: torch.Tensor,
        key_ends: torch.Tensor,
        longest_query: int,
        longest_key: int,
        causal: bool,
        block_table: torch.Tensor,
    ) -> torch.Tensor:
        on_the_device(q, k, v, query_ends, key_ends, block_table)
        lengths(query_ends, len(block_table) + 1)
        lengths(key_ends, len(block_table) + 1)
        assert causal
        assert 0 < longest_query <= longest_key
        return torch.empty_like(q)

    module: Any = types.ModuleType("flash_attn")
    module.flash_attn_with_kvcache, module.flash_attn_varlen_func = flash_attn_with_kvcache, flash_attn_varlen_func
    return module
