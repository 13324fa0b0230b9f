"""The language stage on a CPU in float32: the layers of `DecoderModel`, computed by `pipeline.native`."""

from __future__ import annotations

import numpy as np
import torch

from ..config import DecoderConfig
from ..native import attention, forward, matmul
from ..native.team import Team
from ..native.tile import LANES
from .attention import PagedBatch
from .decoder import DecoderModel, rope_tables


class NativeDecoder:
    """Interface of DecoderModel. Takes its weights out of `model`, which is of no use afterwards."""

    def __init__(self, model: DecoderModel, storage: str = "float32", threads: int = 1) -> None:
        c = self.config = model.config
        self.storage = storage
        self.embeddings = model.weight
        layers = model.model.layers
        packed: dict[str, list[matmul.Packed]] = {name: [] for name in ("qkv", "output", "gate_up", "down")}

        def pack(name: str, weights: torch.Tensor) -> None:
            packed[name].append(matmul.pack(weights.numpy(), storage))

        for layer in layers:
            a, m = layer.self_attn, layer.mlp
            pack("qkv", torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]))
            pack("output", a.o_proj.weight)
            pairs = [w.weight.unflatten(0, (-1, LANES)) for w in (m.gate_proj, m.up_proj)]
            pack("gate_up", torch.stack(pairs, dim=1).flatten(0, 2))
            pack("down", m.down_proj.weight)
        stacked = {}
        for name, items in packed.items():
            stacked[name] = np.stack([p.values for p in items])
            stacked[f"{name}_scales"] = np.stack([p.scales for p in items])
        cos, sin = rope_tables(c)
        half = c.head_size // 2
        self.weights = forward.Weights(
            **stacked,
            attention_norm=np.stack([l.input_layernorm.weight.numpy() for l in layers]),
            mlp_norm=np.stack([l.post_attention_layernorm.weight.numpy() for l in layers]),
            final_norm=model.model.norm.weight.numpy(),
            cos=np.ascontiguousarray(cos[:, :half].numpy()),
            sin=np.ascontiguousarray(sin[:, :half].numpy()),
            epsilon=np.float32(c.rms_norm_eps),
        )
        self.head = matmul.pack(model.lm_head.weight.numpy(), storage)
        self.team = Team(threads, forward.PHASES * c.num_hidden_layers)
        self._scratch = None

    def new_cache(self, blocks: int, block_size: int) -> attention.Cache:
        c = self.config
        return attention.new_cache(c.num_hidden_layers, blocks, c.num_key_value_heads, block_size, c.head_size)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(token_ids, self.embeddings)

    def forward(self, embeds, positions, cache, batch: PagedBatch):
        c = self.config
        x = embeds.numpy().copy()
        group = c.num_attention_heads // c.num_key_value_heads
        per = max(1, attention.TILE_ROWS // group)
        tiles, row = [], 0
        for i, n in enumerate(batch.query_lens):
            tiles += [(i, row + at, min(per, n - at)) for at in range(0, n, per)]
            row += n
        block_size = cache.values.shape[4]
        T, d = len(x), c.head_size
        empty = lambda w: np.empty((T, w), np.float32)
        buffers = forward.Buffers(empty(c.hidden_size), empty((c.num_attention_heads + 2 * c.num_key_value_heads) * d),
            empty(c.num_attention_heads * d), empty(2 * c.intermediate_size), empty(c.intermediate_size))
        scratch = attention.new_scratch(self.team.members, per * group, block_size, d)
        b = forward.Batch(positions.numpy(), batch.slot_mapping.numpy(), batch.block_tables.numpy(), np.array(tiles, np.int64))
        out = np.empty_like(x)
        self.team.run(forward.forward, x, out, b, self.weights, cache, buffers, scratch)
        return torch.from_numpy(out)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        out = np.empty((len(hidden), len(self.head.values) * LANES), np.float32)
        self.team.run(forward.project, hidden.numpy(), *self.head, out)
        return torch.from_numpy(out)[:, : self.config.vocab_size]
