"""The language stage's network: a Llama decoder with grouped-query attention over a paged KV cache.

Tokens of many sequences are packed into one tensor [T, D]; `PagedBatch` says whose they are.
Module names are the released tensor names below `llm.`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..config import DecoderConfig
from .attention import Attention, Packing, PagedBatch, write_cache

KVCache = torch.Tensor
"""[layers, 2 (keys, values), blocks, block size, KV heads, head size]"""

Rope = tuple[torch.Tensor, torch.Tensor]

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Rotated queries [T, heads, head size], keys and values [T, KV heads, head size] -> like the queries."""


def rope_tables(config: DecoderConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every position, float32 [positions, head size] (Su et al., RoFormer, 2021)."""
    half = config.head_size // 2
    frequencies = 1.0 / config.rope_theta ** (torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(config.max_position_embeddings, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x: [T, heads, head size]; cos, sin: [T, 1, head size]. Llama's pairing: i with i + half."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)  # under autocast: products of two dtypes are slow
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def _rows(x: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    return x if wanted is None else x.index_select(0, wanted)


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(dim)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Rotary(nn.Module):
    """Rotates queries and keys; a module, so that it can be compiled into one kernel."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, rope: Rope) -> tuple[torch.Tensor, torch.Tensor]:
        return rotate(q, *rope), rotate(k, *rope)


class Gate(nn.Module):
    """SwiGLU (Shazeer, "GLU variants improve transformer", 2020) without its products; compiled likewise."""

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return F.silu(gate) * up


class SelfAttention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        d, size = config.hidden_size, config.head_size
        self.size = size
        self.q_proj = nn.Linear(d, config.num_attention_heads * size, bias=False)
        self.k_proj = nn.Linear(d, config.num_key_value_heads * size, bias=False)
        self.v_proj = nn.Linear(d, config.num_key_value_heads * size, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * size, d, bias=False)
        self.rotary = Rotary()

    def forward(self, x: torch.Tensor, rope: Rope, attend: Attend, wanted: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, self.size)) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.rotary(q, k, rope)
        return self.o_proj(_rows(attend(q, k, v).flatten(-2), wanted))


class MLP(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        d, hidden = config.hidden_size, config.intermediate_size
        self.gate_proj, self.up_proj = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, d, bias=False)
        self.gate = Gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.gate(self.gate_proj(x), self.up_proj(x)))


class Layer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, rope: Rope, attend: Attend, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """[T, D] -> [T, D], or of the positions `wanted`, int64 [N], alone, which look at all: [N, D]."""
        x = _rows(x, wanted) + self.self_attn(self.input_layernorm(x), rope, attend, wanted).to(x.dtype)
        return x + self.mlp(self.post_attention_layernorm(x)).to(x.dtype)


class Llama(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class DecoderModel(nn.Module):
    prefix = "llm."

    def __init__(self, config: DecoderConfig, attention: Attention) -> None:
        super().__init__()
        self.config, self.attention = config, attention
        self.model = Llama(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._tables: Rope | None = None

    def ignores(self, name: str) -> bool:
        """Released tensors that are recomputed: some Llama exports carry rotary tables."""
        return ".rotary_emb." in name

    @property
    def weight(self) -> torch.Tensor:
        return self.model.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def block_size_multiple(self) -> int:
        return self.attention.block_size_multiple

    @property
    def block_size(self) -> int:
        return max(16, self.block_size_multiple)

    def set_threads(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def cache_bytes(self, tokens: int) -> int:
        return tokens * self.config.cached_values * self.weight.element_size()

    def new_cache(self, blocks: int, block_size: int) -> KVCache:
        c = self.config
        shape = (c.num_hidden_layers, 2, blocks, block_size, c.num_key_value_heads, c.head_size)
        return torch.zeros(shape, dtype=self.weight.dtype, device=self.weight.device)

    def warm_up(self, cache: KVCache) -> None:
        """Nothing to compile."""

    @torch.inference_mode()
    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [T] -> [T, D]."""
        return self.model.embed_tokens(token_ids)

    @torch.inference_mode()
    def forward(self, embeds: torch.Tensor, positions: torch.Tensor, cache: KVCache, batch: PagedBatch) -> torch.Tensor:
        """embeds [T, D], positions int64 [T] -> hidden states [T, D] after the final norm."""
        rope = self._rope(positions, embeds.dtype)
        x = embeds
        for i, layer in enumerate(self.model.layers):
            x = layer(x, rope, self._cached(cache[i], batch))
        return self.model.norm(x)

    def hidden(self, embeds: torch.Tensor, packing: Packing, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """Whole sequences without a cache, with gradients: embeds [T, D] -> hidden states [T, D], or those of the
        positions `wanted`, int64 [N], alone: the last layer then computes little else."""
        positions = torch.cat([torch.arange(n, device=embeds.device) for n in packing.lengths])
        rope = self._rope(positions, embeds.dtype)
        attend = partial(self.attention.varlen, packing=packing, causal=True)
        x, last = embeds, self.model.layers[-1]
        for layer in self.model.layers:
            x = layer(x, rope, attend, wanted if layer is last else None)
        return self.model.norm(x)

    def _cached(self, cache: torch.Tensor, batch: PagedBatch) -> Attend:
        """One layer's attention through its cache, [2, blocks, block size, KV heads, head size]."""

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            write_cache(k, v, cache[0], cache[1], batch.slot_mapping)
            return self.attention.paged(q, cache[0], cache[1], batch)

        return attend

    def _rope(self, positions: torch.Tensor, dtype: torch.dtype) -> Rope:
        if self._tables is None:
            with torch.inference_mode(False):  # tables made while serving may be trained with later
                cos, sin = rope_tables(self.config)
                self._tables = (cos.to(self.weight.device), sin.to(self.weight.device))
        cos, sin = (table[positions][:, None].to(dtype) for table in self._tables)
        return cos, sin

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, D] -> float32 [N, vocab]."""
        return self.lm_head(hidden).float()
