"""Before training, decoder heads already look back, pass over empty places, and find what followed a token."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.model.attention import Packing, TorchAttention
from pipeline.model.decoder import DecoderModel, rotate
from training.default_model import CONFIG, PREPROCESSOR
from training.initialise import initial_weights
from training.model import BLANK

SHARE = CONFIG["num_attention_heads"] // CONFIG["num_key_value_heads"]


@pytest.fixture(scope="module")
def decoder() -> DecoderModel:
    config = ModelConfig.from_dicts(CONFIG, PREPROCESSOR)
    model = DecoderModel(config.decoder, TorchAttention()).requires_grad_(False)
    drawn = initial_weights(config, seed=0)
    model.load_state_dict({name.removeprefix("llm."): t for name, t in drawn.items() if name.startswith("llm.")}, False)
    return model.eval()


def weights(decoder: DecoderModel, ids: list[int], layer: int, group: int) -> torch.Tensor:
    """How the first head of a group weighs: [T, T]."""
    x, length, head = decoder.model.embed_tokens(torch.tensor(ids)), len(ids), group * SHARE
    rope = decoder._rope(torch.arange(length), x.dtype)
    packing = Packing((length,))
    for block in decoder.model.layers[:layer]:
        x = block(x, rope, lambda q, k, v: decoder.attention.varlen(q, k, v, packing, causal=True))
    block = decoder.model.layers[layer]
    normed = block.input_layernorm(x)
    projections = (block.self_attn.q_proj, block.self_attn.k_proj)
    q, k = (rotate(p(normed).unflatten(-1, (-1, block.self_attn.size)), *rope) for p in projections)
    scores = q[:, head] @ k[:, group].T / block.self_attn.size**0.5
    return scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf")).softmax(-1)


def tokens(count: int, seed: int) -> list[int]:
    return (torch.randperm(CONFIG["vocab_size"] - 300, generator=torch.manual_seed(seed))[:count] + 300).tolist()


@pytest.mark.parametrize(("group", "back"), [(0, 1), (2, 2), (3, 3)])
def test_heads_of_the_first_layer_look_back(decoder: DecoderModel, group: int, back: int) -> None:
    found = weights(decoder, tokens(40, 0), 0, group)
    assert found.diagonal(-back).mean() > 0.8


@pytest.mark.parametrize("gap", [3, 4, 6, 9])
def test_empty_places_are_passed_over(decoder: DecoderModel, gap: int) -> None:
    """Letters that stand `gap` places apart, as on a picture: most find the one before them."""
    right = []
    for seed in range(10):
        ids = [token for letter in tokens(6, seed) for token in (letter, *[BLANK] * (gap - 1))]
        found = weights(decoder, ids, 0, 1)
        right += [int(found[place].argmax()) == place - gap for place in range(gap, len(ids), gap)]
    assert sum(right) > 0.6 * len(right)


def test_the_second_layer_finds_what_followed(decoder: DecoderModel) -> None:
    """... a b ... a -> b, for most of many texts."""
    right = []
    for seed in range(200):
        ids = tokens(24, seed)
        ids[-1] = ids[7]
        right.append(int(weights(decoder, ids, 1, 0)[-1].argmax()) == 8)
    assert sum(right) > 0.8 * len(right)


def test_embeddings_leave_room_for_what_heads_find(decoder: DecoderModel) -> None:
    table, size = decoder.weight, CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    assert (table[:, 0] == table[0, 0]).all()
    assert not table[:, 1 : 1 + 2 * size].any()
    logits = decoder.lm_head(decoder.model.norm(table[1000:1100]))
    assert logits.std() < 2
