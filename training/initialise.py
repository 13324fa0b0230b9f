"""Weights before training, drawn so that attention begins local in the encoders, and associative in the decoder.

A transformer that starts from noise spends most of a small budget on finding out what is near what. Here
every head of an encoder begins by looking at one place a fixed offset away, as a convolution would
(Zheng et al., "Structured Initialization for Attention in Vision Transformers", 2024), and every query of
the resampler at one part of the slice. All of it is free to change in training.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention

from .initialise_decoder import associative_decoder
from .initialise_tokens import Relation, relate
from .model import BLANK, EMBEDDINGS, OmniForTraining
from .sketch import COLUMNS

EMBED_STD = 1.0
"""Of token embeddings and of the encoders' outputs alike: next to what layers add, a smaller one is soon lost. The
last norm begins small instead, so that the tied head's logits do."""
SHARPNESS = 2.8  # of a head's attention to its offset: the entries of its query and key projections

VISION_WAVES = (2.0, 0.05)  # the highest and lowest frequency of a place, in radians a patch
RESAMPLER_SHARPNESS = (1.5, 1.7)  # down and across, as SHARPNESS

OFFSETS_2D = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # (rows, columns) in patches
OFFSETS_1D = (0, -3, 3, -8, 8)  # in frames of 20 ms


def initial_weights(config: ModelConfig, seed: int, relations: Sequence[Relation] = ()) -> dict[str, torch.Tensor]:
    """float32 by released name. What isn't structured is normal, scaled by fan-in; norms are one, biases zero.
    `relations` are those of token embeddings."""
    with torch.device("meta"):
        model = OmniForTraining.from_config(config, TorchAttention())
    tensors = {name: _draw(name, tuple(t.shape), seed, config) for name, t in model.state_dict().items()}
    for structured in (_local_vision, _local_audio, _local_resampler):
        tensors |= structured(config, tensors)
    tensors[EMBEDDINGS] = relate(tensors[EMBEDDINGS], relations, seed)
    tensors |= associative_decoder(config.decoder, tensors, seed)
    blank = tensors[EMBEDDINGS][BLANK]
    for name in tensors:
        if "bos_eos" in name:  # a recording begins and ends with nothing, as sketches do
            tensors[name] = blank.expand_as(tensors[name]).clone()
    return tensors


def _draw(name: str, shape: tuple[int, ...], seed: int, config: ModelConfig) -> torch.Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if name == "llm.model.norm.weight":
        return torch.full(shape, 1 / (EMBED_STD * math.sqrt(shape[0])))
    if len(shape) == 1:
        return torch.ones(shape)
    x = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode())).standard_normal(shape).astype(np.float32)
    std = 1 / math.sqrt(np.prod(shape[1:]))
    if "embed_tokens" in name:
        std = EMBED_STD
    elif name in ("vision.resampler.proj", "audio.audio.proj.weight"):
        std *= EMBED_STD
    for prefix, parts, layers in (  # the sum of all layers' outputs keeps the size of one (GPT-2)
        ("llm", ("o_proj", "down_proj"), config.decoder.num_hidden_layers),
        ("vision.vpm", ("out_proj", "fc2"), config.vision.num_hidden_layers),
        ("audio", ("attn.out", "mlp.2"), config.audio.n_layer),
    ):
        if name.startswith(prefix) and any(part in name for part in parts):
            std /= math.sqrt(2 * layers)
    return torch.from_numpy(x * np.float32(std))


def _local_vision(config: ModelConfig, drawn: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The last half of the width carries the place: the row's waves, then the column's."""
    c = config.vision
    count = c.hidden_size // 8  # frequencies of an axis
    side, patches = c.positions_per_side, config.image_processor.scale_resolution // c.patch_size
    places = torch.arange(side) * (patches / side)  # buckets, in patches of a square slice
    frequencies = _frequencies(count, *VISION_WAVES)
    waves = _waves(places, frequencies)  # [side, 2 * count]
    table = torch.zeros(side, side, c.hidden_size)
    table[..., -4 * count : -2 * count] = waves[:, None]
    table[..., -2 * count :] = waves[None]
    kernel = drawn["vision.vpm.embeddings.patch_embedding.weight"].clone()
    kernel[-4 * count :] = 0
    out = {
        "vision.vpm.embeddings.position_embedding.weight": table.flatten(0, 1),
        "vision.vpm.embeddings.patch_embedding.weight": kernel,
    }
    first = c.hidden_size - 4 * count
    size = c.hidden_size // c.num_attention_heads
    for layer in range(c.num_hidden_layers - int(c.drop_last_layer)):
        query, key = torch.zeros(2, c.hidden_size, c.hidden_size)
        for head in range(c.num_attention_heads):
            rows, columns = OFFSETS_2D[head % len(OFFSETS_2D)]
            for axis, offset in enumerate((rows, columns)):
                start = head * size + axis * (size // 2)
                _look(query, key, start, size // 4, first + axis * 2 * count, frequencies, offset)
        prefix = f"vision.vpm.encoder.layers.{layer}.self_attn."
        out |= {f"{prefix}q_proj.weight": query, f"{prefix}k_proj.weight": key}
    return out


def _local_audio(config: ModelConfig, drawn: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The last half of the width carries the time."""
    c = config.audio
    count = c.n_state // 4
    frequencies = _frequencies(count, 1.5, 0.005)
    table = torch.zeros(c.n_ctx, c.n_state)
    table[:, -2 * count :] = _waves(torch.arange(c.n_ctx), frequencies)
    kernel = drawn["audio.audio.conv2.weight"].clone()
    kernel[-2 * count :] = 0
    out = {"audio.audio.positional_embedding": table, "audio.audio.conv2.weight": kernel}
    size = c.n_state // c.n_head
    for layer in range(c.n_layer):
        query, key = torch.zeros(2, c.n_state, c.n_state)
        for head in range(c.n_head):
            _look(query, key, head * size, size // 2, c.n_state - 2 * count, frequencies, OFFSETS_1D[head % 5])
        prefix = f"audio.audio.blocks.{layer}.attn."
        out |= {f"{prefix}query.weight": query, f"{prefix}key.weight": key}
    return out


def _local_resampler(config: ModelConfig, drawn: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each query looks at one of `sketch.COLUMNS` by `sketch.ROWS` parts of a slice of any shape, each head at a
    strip of it: by the waves of the vision encoder's positions, which reach the resampler with the features."""
    c, d = config.vision, config.decoder.hidden_size
    count = c.hidden_size // 8
    frequencies = _frequencies(count, *VISION_WAVES)
    side = config.image_processor.scale_resolution / c.patch_size  # of a square slice, in patches
    columns, rows = COLUMNS, c.query_num // COLUMNS
    # In these dimensions the resampler's own position embedding hardly changes from patch to patch.
    still = torch.arange(d)[torch.arange(d) % (d // 4) >= d // 8][: 4 * count]
    kv_proj = drawn["vision.resampler.kv_proj.weight"].clone()
    kv_proj[still] = 0
    kv_proj[still, torch.arange(c.hidden_size - 4 * count, c.hidden_size)] = 1.0

    # The left edge of a column and the first row of a part, as a patch's position is its upper left corner.
    x = torch.arange(columns).repeat_interleave(rows) * side / columns
    y = torch.arange(rows).repeat(columns) * side / rows
    query = torch.zeros(c.query_num, d)
    query[:, : 4 * count] = torch.cat([_waves(y, frequencies), _waves(x, frequencies)], dim=1)

    heads = d // 128
    projections = torch.zeros(2, d, d)
    for head in range(heads):
        down = ((head + 0.5) / heads * side / rows) - 0.5
        for axis, offset in enumerate((down, max(side / columns - 1, 0) / 2)):
            turn, first = frequencies * offset, 2 * axis * count
            sines = head * 128 + first + torch.arange(count)
            cosines, wave = sines + count, first + torch.arange(count)
            weight = RESAMPLER_SHARPNESS[axis] * (frequencies < 1.5) ** 0.5
            projections[1, sines, still[wave]] = projections[1, cosines, still[wave + count]] = weight
            projections[0, sines, wave] = projections[0, cosines, wave + count] = weight * turn.cos()
            projections[0, sines, wave + count] = weight * turn.sin()
            projections[0, cosines, wave] = -weight * turn.sin()
    value = drawn["vision.resampler.attn.in_proj_weight"][2 * d :]
    return {
        "vision.resampler.query": query,
        "vision.resampler.kv_proj.weight": kv_proj,
        "vision.resampler.attn.in_proj_weight": torch.cat([*projections, value]),
    }


def _frequencies(count: int, highest: float, lowest: float) -> torch.Tensor:
    """Geometric, in radians a patch or frame."""
    return highest * (lowest / highest) ** (torch.arange(count) / (count - 1))


def _waves(places: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """[n] -> [n, 2 * frequencies]: sines, then cosines."""
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _look(
    query: torch.Tensor, key: torch.Tensor, row: int, count: int, first: int, frequencies: torch.Tensor, offset: float
) -> None:
    """Fills 2 * count rows from `row` on of a head's projections, so that its score is the sum over `count`
    frequencies f of cos(f * (key's place - query's place - offset)).

    The waves stand from input dimension `first` on; those of the higher frequencies are taken, which tell
    neighbours apart.
    """
    chosen = torch.arange(count) * max(len(frequencies) * 2 // 3 // count, 1)
    sines, cosines = first + chosen, first + len(frequencies) + chosen
    turn = frequencies[chosen] * offset
    rows = row + torch.arange(count)
    key[rows, sines] = key[rows + count, cosines] = SHARPNESS
    # sin(a + t) and cos(a + t) of the query's place a, turned by t = f * offset
    query[rows, sines] = query[rows + count, cosines] = SHARPNESS * turn.cos()
    query[rows, cosines] = SHARPNESS * turn.sin()
    query[rows + count, sines] = -SHARPNESS * turn.sin()
