"""The one door to attention kernels: torch anywhere, flash-attn on CUDA.

Two operations serve the whole model:

- `varlen`: attention over packed sequences: bidirectional for the encoders, causal for training the decoder.
- `paged`: causal attention of new tokens over a paged KV cache, for the decoder; prefill chunks
  and decode tokens of many sequences in one call.

`TorchAttention` is the slow reference; `FlashAttention` must match it. Only `FlashAttention`
imports flash-attn, and only when it is made.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from ..errors import MegrezError
from ..transfer import to_device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packing:
    """Sequences laid end to end in one tensor [T, ...]. `lengths` sum to T."""

    lengths: tuple[int, ...]

    def cumulative(self, device: torch.device) -> torch.Tensor:
        """int32 [sequences + 1], beginning with 0."""
        return to_device([0, *itertools.accumulate(self.lengths)], torch.int32, device)


@dataclass(frozen=True)
class PagedBatch:
    """Where the tokens of one decoder step stand.

    Sequence i contributes `query_lens[i]` new tokens, packed in order, and has `context_lens[i]`
    tokens in the cache once they are written. `block_tables` is int32 [sequences, max blocks],
    `slot_mapping` int64 [T]: block * block_size + offset for each new token. What kernels want of the lengths on the
    device is copied there once, for all layers.
    """

    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    block_tables: torch.Tensor
    slot_mapping: torch.Tensor

    @property
    def decodes(self) -> bool:
        """Whether each sequence adds one token."""
        return max(self.query_lens) == 1

    @cached_property
    def contexts(self) -> torch.Tensor:
        """`context_lens` as int32 [sequences]."""
        return to_device(self.context_lens, torch.int32, self.block_tables.device)

    @cached_property
    def query_ends(self) -> torch.Tensor:
        """int32 [sequences + 1], beginning with 0."""
        return Packing(self.query_lens).cumulative(self.block_tables.device)

    @cached_property
    def context_ends(self) -> torch.Tensor:
        return Packing(self.context_lens).cumulative(self.block_tables.device)


class Attention(Protocol):
    block_size_multiple: int
    """The cache's block size must be a multiple of this."""
    replayable: bool
    """Whether `paged` looks at the device's tensors alone when each sequence adds one token: what was recorded for some
    lengths is then right for others."""

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        """q: [T, heads, head size]; k, v: [T, KV heads, head size] -> like q. Differentiable."""

    def paged(self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, batch: PagedBatch) -> torch.Tensor:
        """q: [T, heads, head size]; caches: [blocks, block size, KV heads, head size] -> like q."""


def write_cache(
    k: torch.Tensor, v: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, slot_mapping: torch.Tensor
) -> None:
    """Stores new keys and values, [T, KV heads, head size], into their slots."""
    k_cache.view(-1, *k_cache.shape[2:]).index_copy_(0, slot_mapping, k)
    v_cache.view(-1, *v_cache.shape[2:]).index_copy_(0, slot_mapping, v)


class TorchAttention:
    """scaled_dot_product_attention, one call a sequence (encoders: one a run of equal lengths)."""

    block_size_multiple = 1
    replayable = False

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        outs, start, i = [], 0, 0
        grouped = q.shape[1] != k.shape[1]
        lengths = packing.lengths
        while i < len(lengths):
            run = 1  # neighbours of one length become one batch
            while i + run < len(lengths) and lengths[i + run] == lengths[i]:
                run += 1
            stop = start + run * lengths[i]
            # [run * L, H, d] -> [run, H, L, d]
            a, b, c = (x[start:stop].unflatten(0, (run, lengths[i])).transpose(1, 2) for x in (q, k, v))
            out = F.scaled_dot_product_attention(a, b, c, is_causal=causal, enable_gqa=grouped)
            outs.append(out.transpose(1, 2).flatten(0, 1))
            start, i = stop, i + run
        return torch.cat(outs)

    def paged(self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, batch: PagedBatch) -> torch.Tensor:
        block_size, outs, start = k_cache.shape[1], [], 0
        for i, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
            blocks = batch.block_tables[i, : -(-context // block_size)].long()
            # [blocks, block size, KV heads, d] -> [1, KV heads, context, d]
            k = k_cache[blocks].flatten(0, 1)[:context].transpose(0, 1)[None]
            v = v_cache[blocks].flatten(0, 1)[:context].transpose(0, 1)[None]
            query = q[start : start + n].transpose(0, 1)[None]
            mask = None
            if 1 < n < context:  # token j of the chunk sees the first context - n + j + 1 tokens
                mask = torch.ones(n, context, dtype=torch.bool, device=q.device).tril(context - n)
            out = F.scaled_dot_product_attention(
                query, k, v, attn_mask=mask, is_causal=1 < n == context, enable_gqa=True
            )
            outs.append(out[0].transpose(0, 1))
            start += n
        return torch.cat(outs)


class FlashAttention:
    """flash-attn 2.8: `flash_attn_varlen_func` for packed and paged prefill,
    `flash_attn_with_kvcache` when each sequence adds one token. Half precision on CUDA only."""

    block_size_multiple = 256  # flash-attn 2's paged kernels take pages of k * 256 tokens
    replayable = True

    def __init__(self) -> None:
        try:
            self._lib: Any = import_module("flash_attn")
        except ImportError as error:
            how = "pip install --no-build-isolation -e '.[gpu]'"
            raise MegrezError(f"attention 'flash' needs flash-attn ({error}): {how}") from error

    def varlen(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, *, causal: bool = False
    ) -> torch.Tensor:
        ends, longest = packing.cumulative(q.device), max(packing.lengths)
        return self._lib.flash_attn_varlen_func(q, k, v, ends, ends, longest, longest, causal=causal)

    def paged(self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, batch: PagedBatch) -> torch.Tensor:
        out: torch.Tensor
        if batch.decodes:
            out = self._lib.flash_attn_with_kvcache(
                q[:, None],
                k_cache,
                v_cache,
                cache_seqlens=batch.contexts,
                block_table=batch.block_tables,
                causal=True,
            )
            return out[:, 0]
        out = self._lib.flash_attn_varlen_func(
            q,
            k_cache,
            v_cache,
            batch.query_ends,
            batch.context_ends,
            max(batch.query_lens),
            max(batch.context_lens),
            causal=True,
            block_table=batch.block_tables,
        )
        return out


def make_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """`name`: 'torch', 'flash', or 'auto' (flash on CUDA in half precision, else torch); 'native' kernels are the
    decoder's, beside them the encoders have torch's."""
    half = dtype in (torch.float16, torch.bfloat16)
    if name == "auto":
        name = "torch"
        if device.type == "cuda" and half:
            missing = _import_error("flash_attn")
            name = "torch" if missing else "flash"
            if missing:
                log.warning("flash-attn can't be imported, so attention is torch's, without CUDA graphs: %s", missing)
        log.info("attention: %s", name)
    if name in ("torch", "native"):
        return TorchAttention()
    if name == "flash":
        if not half:
            raise MegrezError(f"attention 'flash' computes in bfloat16, not {dtype}; set dtype: bfloat16")
        return FlashAttention()
    raise MegrezError(f"attention {name!r} is unknown; choose auto, native, torch or flash")


def _import_error(module: str) -> ImportError | None:
    try:
        import_module(module)
    except ImportError as error:
        return error
    return None
