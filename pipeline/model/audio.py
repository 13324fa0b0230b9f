"""The audio stage's network: Whisper's encoder over real lengths, pooled by two and projected.

Spans are packed end to end, [total frames, C]; nothing is padded to 30 s. Module names are the
released tensor names below `audio.` (openai-whisper's).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..config import AudioConfig
from .attention import Attention, Packing


class MultiHeadAttention(nn.Module):
    def __init__(self, config: AudioConfig, attention: Attention) -> None:
        super().__init__()
        c = config.n_state
        self.heads, self.attention = config.n_head, attention
        self.query, self.key, self.value = nn.Linear(c, c), nn.Linear(c, c, bias=False), nn.Linear(c, c)
        self.out = nn.Linear(c, c)

    def forward(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)) for p in (self.query, self.key, self.value))
        return self.out(self.attention.varlen(q, k, v, packing).flatten(-2))


class Block(nn.Module):
    def __init__(self, config: AudioConfig, attention: Attention) -> None:
        super().__init__()
        c = config.n_state
        self.attn = MultiHeadAttention(config, attention)
        self.attn_ln = nn.LayerNorm(c)
        self.mlp = nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
        self.mlp_ln = nn.LayerNorm(c)

    def forward(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        x = x + self.attn(self.attn_ln(x), packing).to(x.dtype)
        return x + self.mlp(self.mlp_ln(x)).to(x.dtype)


class WhisperEncoder(nn.Module):
    def __init__(self, config: AudioConfig, attention: Attention) -> None:
        super().__init__()
        c = config.n_state
        self.pool = config.avg_pool
        self.conv1 = nn.Conv1d(config.n_mels, c, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(c, c, kernel_size=3, stride=2, padding=1)
        self.positional_embedding = nn.Parameter(torch.empty(config.n_ctx, c))
        self.blocks = nn.ModuleList(Block(config, attention) for _ in range(config.n_layer))
        self.ln_post = nn.LayerNorm(c)
        self.proj = nn.Linear(c, config.output_dim)
        if config.add_audio_bos_eos_token:
            self.audio_bos_eos_token = nn.Embedding(2, config.output_dim)

    def forward(self, mels: list[torch.Tensor], checkpoint: Callable[[], None]) -> list[torch.Tensor]:
        """mels: [n_mels, 2 * frames] a span -> embeds [span, D] a span."""
        frames = [self._frames(mel) for mel in mels]  # convolutions see each span's own edges
        packing = Packing(tuple(len(x) for x in frames))
        x = torch.cat(frames)
        for block in self.blocks:
            checkpoint()
            x = block(x, packing)
        parts = list(x.split(list(packing.lengths)))
        if self.pool:  # an odd last frame is dropped, as AvgPool1d(2, 2) does
            parts = [part[: len(part) // 2 * 2].unflatten(0, (-1, 2)).mean(1) for part in parts]
        lengths = [len(part) for part in parts]
        return [self._frame_span(part) for part in self.proj(self.ln_post(torch.cat(parts))).split(lengths)]

    def _frames(self, mel: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.conv1(mel[None]))
        x = F.gelu(self.conv2(x))[0].T  # [frames, C]
        return x + self.positional_embedding[: len(x)]

    def _frame_span(self, embeds: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "audio_bos_eos_token"):
            return embeds
        begin, end = self.audio_bos_eos_token.weight
        return torch.cat([begin[None], embeds, end[None]])


class AudioModel(nn.Module):
    prefix = "audio."

    def __init__(self, config: AudioConfig, attention: Attention) -> None:
        super().__init__()
        self.config = config
        self.audio = WhisperEncoder(config, attention)

    def ignores(self, name: str) -> bool:
        return False

    def forward(self, mels: list[torch.Tensor], checkpoint: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
        """mels: float32 [n_mels, 2 * frames] a span -> [span, D] a span, in order.

        Spans of one length are computed side by side.
        """
        weight = self.audio.conv1.weight
        order = sorted(range(len(mels)), key=lambda i: mels[i].shape[1])
        outs = self.audio([mels[i].to(weight.device, weight.dtype) for i in order], checkpoint)
        return [out for _, out in sorted(zip(order, outs, strict=True), key=lambda pair: pair[0])]

    @torch.inference_mode()
    def encode(self, mels: list[torch.Tensor], checkpoint: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
        """`forward` without gradients."""
        return self(mels, checkpoint)
