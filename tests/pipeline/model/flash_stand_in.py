"""A stand-in for flash-attn 2.8.3 on the CPU: its two signatures, its refusals, its mask.

Computed in float32 and rounded once, with the causal mask aligned to the bottom right.
"""

from __future__ import annotations

import itertools
import types
from collections import Counter
from typing import Any

import torch

calls: Counter[str] = Counter()


def _check_dtype(*tensors: torch.Tensor) -> None:
    for tensor in tensors:
        assert tensor.dtype in (torch.float16, torch.bfloat16), "FlashAttention only support fp16 and bf16 data type"
        assert tensor.dtype == tensors[0].dtype, "query, key and value must have the same dtype"
        assert tensor.stride(-1) == 1, "Input tensor must have contiguous last dimension"
        assert tensor.shape[-1] <= 256, "FlashAttention forward only supports head dimension at most 256"
        assert tensor.shape[-1] % 8 == 0, "head dimension must be a multiple of 8"


def _check_lengths(lengths: torch.Tensor, shape: tuple[int, ...]) -> None:
    assert lengths.dtype == torch.int32, "cu_seqlens and cache_seqlens must have dtype int32"
    assert lengths.is_contiguous()
    assert tuple(lengths.shape) == shape


def _check_pages(block_table: torch.Tensor, cache: torch.Tensor, batch: int) -> None:
    assert block_table.dtype == torch.int32, "block_table must have dtype torch.int32"
    assert block_table.stride(-1) == 1, "block_table must have contiguous last dimension"
    assert block_table.dim() == 2
    assert block_table.shape[0] == batch
    assert cache.dim() == 4, "a paged cache is [blocks, page size, heads, head size]"
    assert cache.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256"


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, causal: bool) -> torch.Tensor:
    """q [n, H, d], k and v [m, KV, d] -> [n, H, d]."""
    assert q.shape[1] % k.shape[1] == 0, "Number of heads in key/value must divide number of heads in query"
    group = q.shape[1] // k.shape[1]
    k, v = (x.float().repeat_interleave(group, dim=1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q.float(), k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        n, m = scores.shape[1:]
        scores = scores.masked_fill(~torch.ones(n, m, dtype=torch.bool).tril(m - n), -torch.inf)
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v).to(q.dtype)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    calls["varlen" if block_table is None else "paged varlen"] += 1
    _check_dtype(q, k, v)
    assert type(max_seqlen_q) is int
    assert type(max_seqlen_k) is int
    batch = len(cu_seqlens_q) - 1
    _check_lengths(cu_seqlens_q, (batch + 1,))
    _check_lengths(cu_seqlens_k, (batch + 1,))
    ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    assert ends_q[0] == ends_k[0] == 0
    assert ends_q[-1] == len(q), "cu_seqlens_q does not cover q"
    lengths_q = [b - a for a, b in itertools.pairwise(ends_q)]
    lengths_k = [b - a for a, b in itertools.pairwise(ends_k)]
    assert max(lengths_q) <= max_seqlen_q
    assert max(lengths_k) <= max_seqlen_k
    if block_table is None:
        assert ends_k[-1] == len(k)
    else:
        _check_pages(block_table, k, batch)
    outs = []
    for i in range(batch):
        if block_table is None:
            keys, values = k[ends_k[i] : ends_k[i + 1]], v[ends_k[i] : ends_k[i + 1]]
        else:
            keys, values = (cache[block_table[i].long()].flatten(0, 1)[: lengths_k[i]] for cache in (k, v))
        outs.append(_attend(q[ends_q[i] : ends_q[i + 1]], keys, values, softmax_scale, causal))
    return torch.cat(outs)


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    rotary_cos: torch.Tensor | None = None,
    rotary_sin: torch.Tensor | None = None,
    cache_seqlens: int | torch.Tensor | None = None,
    cache_batch_idx: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: torch.Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> torch.Tensor:
    calls["kvcache"] += 1
    assert k is None
    assert v is None
    _check_dtype(q, k_cache, v_cache)
    assert q.dim() == 4, "q is [batch, new tokens, heads, head size]"
    assert isinstance(cache_seqlens, torch.Tensor)
    assert block_table is not None
    _check_lengths(cache_seqlens, (len(q),))
    _check_pages(block_table, k_cache, len(q))
    outs = []
    for i, length in enumerate(cache_seqlens.tolist()):
        keys, values = (cache[block_table[i].long()].flatten(0, 1)[:length] for cache in (k_cache, v_cache))
        outs.append(_attend(q[i], keys, values, softmax_scale, causal))
    return torch.stack(outs)


def module() -> Any:
    stand_in = types.ModuleType("flash_attn")
    stand_in.__version__ = "2.8.3"  # type: ignore[attr-defined]
    stand_in.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    stand_in.flash_attn_with_kvcache = flash_attn_with_kvcache  # type: ignore[attr-defined]
    return stand_in
