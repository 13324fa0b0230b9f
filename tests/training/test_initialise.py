"""Before training, attention is local: whatever is seen or heard, heads look a fixed offset away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.model.vision import sincos_2d
from training.default_model import CONFIG, PREPROCESSOR
from training.initialise import OFFSETS_1D, OFFSETS_2D, initial_weights
from training.model import BLANK, OmniForTraining
from training.sketch import COLUMNS, ROWS

SIDE = PREPROCESSOR["scale_resolution"] // PREPROCESSOR["patch_size"]  # of a slice in patches


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.from_dicts(CONFIG, PREPROCESSOR)


@pytest.fixture(scope="module")
def model(config: ModelConfig) -> OmniForTraining:
    model = OmniForTraining.from_config(config, TorchAttention()).requires_grad_(False)
    model.load_state_dict(initial_weights(config, seed=0))
    return model.eval()


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    """A slice of noise."""
    return torch.rand(SIDE * SIDE, 3 * PREPROCESSOR["patch_size"] ** 2, generator=torch.manual_seed(0)) * 2 - 1


def looked_at(x: torch.Tensor, query: nn.Linear, key: nn.Linear, heads: int) -> torch.Tensor:
    """The key that each head's queries weigh most, [heads, T]; x: [T, C]."""
    q, k = (project(x).unflatten(-1, (heads, -1)).transpose(0, 1) for project in (query, key))
    return (q @ k.transpose(1, 2)).argmax(-1)


def test_vision_heads_look_at_their_offset(model: OmniForTraining, patches: torch.Tensor) -> None:
    siglip, heads = model.vision.vpm, CONFIG["vision_config"]["num_attention_heads"]
    x = siglip.embeddings(patches, [(SIDE, SIDE)])
    inside = torch.arange(SIDE * SIDE).view(SIDE, SIDE)[2:-2, 2:-2].flatten()
    for layer in siglip.encoder.layers:
        found = looked_at(layer.layer_norm1(x), layer.self_attn.q_proj, layer.self_attn.k_proj, heads)
        for head, (rows, columns) in zip(found, OFFSETS_2D, strict=True):
            assert torch.equal(head[inside], inside + rows * SIDE + columns)


def test_audio_heads_look_at_their_offset(model: OmniForTraining) -> None:
    encoder, heads = model.audio.audio, CONFIG["audio_config"]["n_head"]
    x = encoder._frames(torch.randn(CONFIG["audio_config"]["n_mels"], 300, generator=torch.manual_seed(0)))
    inside = torch.arange(10, len(x) - 10)
    for block in encoder.blocks:
        found = looked_at(block.attn_ln(x), block.attn.query, block.attn.key, heads)
        for head, offset in zip(found, OFFSETS_1D, strict=True):
            assert torch.equal(head[inside], inside + offset)


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (13, 20), (20, 13)])
def test_the_resamplers_queries_look_at_their_part(model: OmniForTraining, rows: int, columns: int) -> None:
    """Of a slice of any shape: on average within a column and a row of the part that a query stands for."""
    resampler = model.vision.resampler
    size = 3 * PREPROCESSOR["patch_size"] ** 2
    pixels = torch.rand(rows * columns, size, generator=torch.manual_seed(0)) * 2 - 1
    features = model.vision.vpm(pixels, [(rows, columns)], lambda: None)
    values = resampler.ln_kv(resampler.kv_proj(features))
    keys = values + sincos_2d(values.shape[1], rows, columns)
    _, weights = resampler.attn(resampler.ln_q(resampler.query), keys, values)
    weights = weights.view(-1, rows, columns)
    x = (weights.sum(1) * (torch.arange(columns) + 0.5)).sum(1) / columns
    y = (weights.sum(2) * (torch.arange(rows) + 0.5)).sum(1) / rows
    places = torch.arange(COLUMNS * ROWS)
    across = (x - (places // ROWS + 0.5) / COLUMNS).abs()
    down = (y - (places % ROWS + 0.5) / ROWS).abs()
    assert across.median() < 0.5 / COLUMNS
    assert down.median() < 0.5 / ROWS
    assert (across < 1 / COLUMNS).float().mean() > 0.8
    assert (down < 1 / ROWS).float().mean() > 0.8


def test_a_recording_begins_and_ends_with_what_stands_for_nothing(model: OmniForTraining) -> None:
    for end in model.audio.audio.audio_bos_eos_token.weight:
        assert torch.equal(end, model.llm.model.embed_tokens.weight[BLANK])


def test_the_seed_and_the_name_decide(config: ModelConfig) -> None:
    first, again, other = (initial_weights(config, seed) for seed in (0, 0, 1))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    differing = {name for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    assert {"llm.model.embed_tokens.weight", "vision.resampler.proj", "audio.audio.conv1.weight"} <= differing
    assert not torch.equal(*(first[f"llm.model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1)))
