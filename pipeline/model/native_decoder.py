"""The language stage on a CPU in float32: what `DecoderModel` computes, by the kernels of `pipeline.native`."""

from __future__ import annotations

import logging
import time
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..config import DecoderConfig
from ..errors import MegrezError
from ..native.attention import QUERY_ROWS, Cache, Scratch, new_cache, new_scratch
from ..native.compiled import forward, project
from ..native.forward import PHASES, Batch, Buffers, Weights
from ..native.matmul import PIECE
from ..native.packing import Packed, Storage, allocate, exact_in_bfloat16, pack
from ..native.team import Team
from ..native.tile import LANES
from ..types import WeightStorage
from .attention import PagedBatch
from .decoder import DecoderModel, Layer, rope_tables

log = logging.getLogger(__name__)

SLOW_WARM_UP = 2.0  # seconds: loading takes less


class NativeDecoder:
    """Interface of DecoderModel, whose layers it takes one after the other, so that they are never all held twice."""

    block_size_multiple = LANES
    block_size = 64

    def __init__(self, model: DecoderModel, storage: WeightStorage = "auto") -> None:
        if reason := misfit(model.config):
            raise MegrezError(f"the native kernels can't compute this checkpoint: {reason}")
        begin = time.perf_counter()
        self.config, self.device = model.config, torch.device("cpu")
        self.storage = _choose(model, storage)
        self._embeddings = model.weight
        self._head = allocate(self.config.vocab_size, self.config.hidden_size, self.storage, 1)
        pack(_array(model.lm_head.weight), Packed(self._head.values[0], self._head.scales[0]))
        self._weights = _pack_layers(model, self.storage)
        self._team = Team(1, PHASES * self.config.num_hidden_layers)
        self._buffers: Buffers | None = None
        self._scratch: Scratch | None = None
        log.info("weights packed as %s in %.1f s", self.storage, time.perf_counter() - begin)

    def set_threads(self, threads: int) -> None:
        """torch's are left with one: they would spin where the team's compute."""
        torch.set_num_threads(1)
        if threads != self._team.members:
            self._team.resize(threads)
            self._buffers = self._scratch = None

    def cache_bytes(self, tokens: int) -> int:
        return tokens * self.config.cached_values * np.dtype(np.float32).itemsize

    def new_cache(self, blocks: int, block_size: int) -> Cache:
        c = self.config
        return new_cache(c.num_hidden_layers, blocks, c.num_key_value_heads, block_size, c.head_size)

    def warm_up(self, cache: Cache) -> None:
        """Compiles the kernels, or loads their machine code from the disk, by a step of one token."""
        begin = time.perf_counter()
        place = torch.zeros(1, dtype=torch.int64)
        batch = PagedBatch((1,), (1,), torch.zeros((1, 1), dtype=torch.int32), place)
        self.logits(self(torch.zeros((1, self.config.hidden_size)), place, cache, batch))
        if (seconds := time.perf_counter() - begin) > SLOW_WARM_UP:
            log.info("native kernels compiled in %.1f s; other processes load them", seconds)

    @torch.inference_mode()
    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [T] -> float32 [T, D]."""
        return F.embedding(token_ids, self._embeddings).float()

    def __call__(self, embeds: torch.Tensor, positions: torch.Tensor, cache: Cache, batch: PagedBatch) -> torch.Tensor:
        """embeds float32 [T, D], positions int64 [T] -> hidden states [T, D] after the final norm."""
        x, block_size = embeds.numpy().copy(), cache.values.shape[4]
        if self._buffers is None or len(self._buffers.normed) < len(x):
            self._buffers = self._new_buffers(len(x))
        if self._scratch is None or self._scratch.weights.shape[2] != block_size:
            rows = self._group * self._tile_queries
            self._scratch = new_scratch(self._team.members, rows, block_size, self.config.head_size)
        tokens = Batch(positions.numpy(), batch.slot_mapping.numpy(), batch.block_tables.numpy(), self._tiles(batch))
        out = np.empty_like(x)
        self._team.run(forward, x, out, tokens, self._weights, cache, self._buffers, self._scratch)
        return torch.from_numpy(out)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, D] -> float32 [N, vocab]."""
        out = np.empty((len(hidden), self._head.values.shape[1] * LANES), np.float32)
        self._team.run(project, hidden.contiguous().numpy(), self._head, out)
        return torch.from_numpy(out)[:, : self.config.vocab_size]

    @property
    def _group(self) -> int:
        return self.config.num_attention_heads // self.config.num_key_value_heads

    @property
    def _tile_queries(self) -> int:
        return max(1, QUERY_ROWS // self._group)

    def _tiles(self, batch: PagedBatch) -> np.ndarray:
        """Those that take longest first: whoever of the team is done early finds a short one left."""
        tiles, row, most = [], 0, self._tile_queries
        for sequence, length in enumerate(batch.query_lens):
            tiles += [(sequence, row + at, min(most, length - at)) for at in range(0, length, most)]
            row += length
        tiles.sort(key=lambda tile: -tile[2] * batch.context_lens[tile[0]])
        return np.array(tiles, np.int64)

    def _new_buffers(self, rows: int) -> Buffers:
        c = self.config
        q, kv = c.num_attention_heads * c.head_size, c.num_key_value_heads * c.head_size
        widths = c.hidden_size, q + 2 * kv, q, c.intermediate_size
        normed, qkv, attended, gated = (np.empty((rows, width), np.float32) for width in widths)
        pieces = np.empty((self._team.members, rows, PIECE * LANES), np.float32)
        return Buffers(normed, qkv, attended, pieces, gated)


def misfit(config: DecoderConfig) -> str | None:
    """Why the kernels can't compute a model, if they can't."""
    for name, size in (("head size", config.head_size), ("intermediate_size", config.intermediate_size)):
        if size % LANES:
            return f"its {name} of {size} is not a multiple of {LANES}"
    return None


def _choose(model: DecoderModel, storage: WeightStorage) -> Storage:
    if storage != "auto":
        assert storage in get_args(Storage), storage
        return storage
    linears = (m.weight for m in model.modules() if isinstance(m, nn.Linear))
    exact = all(w.dtype == torch.bfloat16 or exact_in_bfloat16(_array(w)) for w in linears)
    return "bfloat16" if exact else "float32"


def _pack_layers(model: DecoderModel, storage: Storage) -> Weights:
    c, count = model.config, model.config.num_hidden_layers
    size, hidden = c.head_size, c.intermediate_size
    qkv = allocate((c.num_attention_heads + 2 * c.num_key_value_heads) * size, c.hidden_size, storage, count)
    output = allocate(c.hidden_size, c.num_attention_heads * size, storage, count)
    gate_up = allocate(2 * hidden, c.hidden_size, storage, count)
    down = allocate(c.hidden_size, hidden, storage, count)
    norms = np.empty((2, count, c.hidden_size), np.float32)
    layers, model.model.layers = list(model.model.layers), nn.ModuleList()
    for i in range(count):
        layer, layers[i] = layers[i], nn.Module()
        assert isinstance(layer, Layer)
        a, m = layer.self_attn, layer.mlp
        pairs = torch.stack([w.weight.unflatten(0, (-1, LANES)) for w in (m.gate_proj, m.up_proj)], dim=1)
        for weights, room in (
            (torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]), qkv),
            (a.o_proj.weight, output),
            (pairs.flatten(0, 2), gate_up),
            (m.down_proj.weight, down),
        ):
            pack(_array(weights), Packed(room.values[i], room.scales[i]))
        norms[0, i], norms[1, i] = _array(layer.input_layernorm.weight), _array(layer.post_attention_layernorm.weight)
    cos, sin = (np.ascontiguousarray(table[:, : size // 2].numpy()) for table in rope_tables(c))
    return Weights(
        qkv=qkv,
        output=output,
        gate_up=gate_up,
        down=down,
        attention_norm=norms[0],
        mlp_norm=norms[1],
        final_norm=_array(model.model.norm.weight),
        cos=cos,
        sin=sin,
        epsilon=np.float32(c.rms_norm_eps),
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()
