"""The vision stage's network: SigLIP over slices of any size, then the resampler.

Slices are packed end to end, [total patches, C]; nothing is padded. Module names are the released
tensor names below `vision.`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from ..config import VisionConfig
from .attention import Attention, Packing

Checkpoint = Callable[[], None]
"""Called between layers; raises `Cancelled` to give the batch up."""


def bucketize(n: int, buckets: int) -> torch.Tensor:
    """Rows (or columns) of the position table for `n` patches along a side: int64 [n].

    Patch i stands at i/n and falls into the bucket numbered by the boundaries 1/buckets, 2/buckets …
    at or below it. The coordinates come from a float32 arange, as the model was trained with them:
    exact fractions fall into other buckets for 25, 49, 50 and 55 patches.
    """
    coordinates = torch.arange(0, 1 - 1e-6, 1 / n)[:n]
    boundaries = torch.arange(1 / buckets, 1.0, 1 / buckets)
    return torch.bucketize(coordinates, boundaries, right=True)


@lru_cache(maxsize=8)  # shapes of a picture's slices; for a width of 2,560 each has 10 MB
def sincos_2d(dim: int, rows: int, columns: int) -> torch.Tensor:
    """Position embedding of the resampler's keys: float32 [rows * columns, dim].

    The first half of the width encodes the column, the second the row; each half is sines, then
    cosines, of frequencies 1 / 10000^(i / (dim/4)) (MiniCPM-V's get_2d_sincos_pos_embed).
    """
    quarter = dim // 4
    frequencies = 1.0 / 10000.0 ** (torch.arange(quarter, dtype=torch.float64) / quarter)

    def encode(n: int) -> torch.Tensor:  # [n, dim / 2]
        angles = torch.arange(n, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    column = encode(columns)[None].expand(rows, -1, -1)
    row = encode(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([column, row], dim=-1).reshape(rows * columns, dim).float()


class Embeddings(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = config.positions_per_side
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, patches: torch.Tensor, sizes: list[tuple[int, int]]) -> torch.Tensor:
        """patches: [T, 3 * patch²]; sizes: (rows, columns) a slice -> [T, C]."""
        # A convolution whose stride is its kernel is a linear map of each patch.
        x = F.linear(patches, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        ids = [(bucketize(h, self.side)[:, None] * self.side + bucketize(w, self.side)).flatten() for h, w in sizes]
        return x + self.position_embedding(torch.cat(ids).to(x.device))


class SelfAttention(nn.Module):
    def __init__(self, config: VisionConfig, attention: Attention) -> None:
        super().__init__()
        c = config.hidden_size
        self.heads, self.attention = config.num_attention_heads, attention
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(c, c), nn.Linear(c, c), nn.Linear(c, c)
        self.out_proj = nn.Linear(c, c)

    def forward(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(self.attention.varlen(q, k, v, packing).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Layer(nn.Module):
    def __init__(self, config: VisionConfig, attention: Attention) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, attention)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), packing).to(x.dtype)
        return x + self.mlp(self.layer_norm2(x)).to(x.dtype)


class Encoder(nn.Module):
    def __init__(self, config: VisionConfig, attention: Attention) -> None:
        super().__init__()
        count = config.num_hidden_layers - int(config.drop_last_layer)
        self.layers = nn.ModuleList(Layer(config, attention) for _ in range(count))


class Siglip(nn.Module):
    def __init__(self, config: VisionConfig, attention: Attention) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config, attention)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, patches: torch.Tensor, sizes: list[tuple[int, int]], checkpoint: Checkpoint) -> torch.Tensor:
        """[T, 3 * patch²] -> features [T, C]."""
        packing = Packing(tuple(h * w for h, w in sizes))
        x = self.embeddings(patches, sizes)
        for layer in self.encoder.layers:
            checkpoint()
            x = layer(x, packing)
        return self.post_layernorm(x)


class Resampler(nn.Module):
    """`query_num` learned queries look at one slice's features: any size in, [query_num, D] out."""

    HEAD_SIZE = 128

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        d = config.output_dim
        self.query = nn.Parameter(torch.empty(config.query_num, d))
        self.kv_proj = nn.Linear(config.hidden_size, d, bias=False)
        self.attn = nn.MultiheadAttention(d, d // self.HEAD_SIZE, batch_first=True)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(d, eps=1e-6) for _ in range(3))
        self.proj = nn.Parameter(torch.empty(d, d))

    def forward(self, features: torch.Tensor, sizes: list[tuple[int, int]]) -> torch.Tensor:
        """[T, C] -> [slices, query_num, D]. Neighbouring slices of one size run as one batch."""
        values = self.ln_kv(self.kv_proj(features))
        query = self.ln_q(self.query)
        outs, start, i = [], 0, 0
        while i < len(sizes):
            run, (rows, columns) = 1, sizes[i]
            while i + run < len(sizes) and sizes[i + run] == sizes[i]:
                run += 1
            stop = start + run * rows * columns
            v = values[start:stop].unflatten(0, (run, rows * columns))  # [run, patches, D]
            k = v + sincos_2d(v.shape[-1], rows, columns).to(v)
            out, _ = self.attn(query.expand(run, -1, -1), k, v, need_weights=False)
            outs.append(out)
            start, i = stop, i + run
        return self.ln_post(torch.cat(outs)) @ self.proj


@dataclass(frozen=True)
class PatchedSlice:
    """One slice as patches, row by row: float32 [rows * columns, 3 * patch²], channels outermost."""

    patches: torch.Tensor
    rows: int
    columns: int


class VisionModel(nn.Module):
    prefix = "vision."

    def __init__(self, config: VisionConfig, attention: Attention) -> None:
        super().__init__()
        self.config = config
        self.vpm = Siglip(config, attention)
        self.resampler = Resampler(config)

    def ignores(self, name: str) -> bool:
        """Released tensors that are recomputed, or that belong to the dropped last layer."""
        if name in ("vision.vpm.embeddings.position_ids", "vision.resampler.pos_embed"):
            return True
        dropped = f"vision.vpm.encoder.layers.{self.config.num_hidden_layers - 1}."
        return self.config.drop_last_layer and name.startswith(dropped)

    def forward(self, slices: list[PatchedSlice], checkpoint: Checkpoint = lambda: None) -> list[torch.Tensor]:
        """One tensor [query_num, D] a slice, in order. Equal sizes are computed side by side."""
        order = sorted(range(len(slices)), key=lambda i: (slices[i].rows, slices[i].columns))
        weight = self.resampler.proj
        patches = torch.cat([slices[i].patches for i in order]).to(weight.device, weight.dtype)
        sizes = [(slices[i].rows, slices[i].columns) for i in order]
        embeds = self.resampler(self.vpm(patches, sizes, checkpoint), sizes)
        outs: list[torch.Tensor] = [embeds] * len(slices)
        for position, i in enumerate(order):
            outs[i] = embeds[position]
        return outs

    @torch.inference_mode()
    def encode(self, slices: list[PatchedSlice], checkpoint: Checkpoint = lambda: None) -> list[torch.Tensor]:
        """`forward` without gradients."""
        return self(slices, checkpoint)
