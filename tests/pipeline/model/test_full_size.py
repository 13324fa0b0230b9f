"""The released architecture, built without memory: its sizes are the model card's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import VisionModel

CONFIG: dict[str, Any] = {
    "architectures": ["MegrezO"],
    "model_type": "megrezo",
    "hidden_size": 2560,
    "intermediate_size": 7168,
    "num_hidden_layers": 32,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "vocab_size": 122880,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "query_num": 64,
    "drop_vision_last_layer": False,
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 980,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    "audio_config": {
        "n_mels": 128,
        "n_ctx": 1500,
        "n_state": 1280,
        "n_head": 20,
        "n_layer": 32,
        "output_dim": 2560,
        "avg_pool": True,
        "add_audio_bos_eos_token": True,
    },
}


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.from_dicts(CONFIG)


def billions(module: nn.Module) -> float:
    assert all(p.is_meta for p in module.parameters())
    return sum(p.numel() for p in module.parameters()) / 1e9


def test_decoder(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = DecoderModel(config.decoder, TorchAttention())
    assert config.decoder.head_size == 64
    assert billions(model.model.embed_tokens) == pytest.approx(0.31, abs=0.005)
    assert billions(model.lm_head) == pytest.approx(0.31, abs=0.005)
    rest = billions(model) - billions(model.model.embed_tokens) - billions(model.lm_head)
    assert rest == pytest.approx(2.29, abs=0.005)


def test_a_tied_decoder_has_one_table(config: ModelConfig) -> None:
    tied = ModelConfig.from_dicts(CONFIG | {"tie_word_embeddings": True})
    with torch.device("meta"):
        model, untied = (DecoderModel(c.decoder, TorchAttention()) for c in (tied, config))
    assert billions(untied) - billions(model) == pytest.approx(122880 * 2560 / 1e9)


def test_vision(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = VisionModel(config.vision, TorchAttention())
    assert config.vision.positions_per_side == 70
    assert billions(model.vpm) == pytest.approx(0.42, abs=0.005)
    assert billions(model.resampler) == pytest.approx(0.036, abs=0.0005)
    assert model.resampler.attn.num_heads == 20


def test_vision_without_its_last_layer() -> None:
    config = ModelConfig.from_dicts(CONFIG | {"drop_vision_last_layer": True})
    with torch.device("meta"):
        model = VisionModel(config.vision, TorchAttention())
    assert len(model.vpm.encoder.layers) == 26


def test_audio(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = AudioModel(config.audio, TorchAttention())
    # The begin and end vectors belong to neither figure.
    frame, projection = billions(model.audio.audio_bos_eos_token), billions(model.audio.proj)
    assert billions(model) - frame - projection == pytest.approx(0.64, abs=0.005)
    assert projection == pytest.approx(0.003, abs=0.0005)


def test_all_together(config: ModelConfig) -> None:
    with torch.device("meta"):
        stages = [
            DecoderModel(config.decoder, TorchAttention()),
            VisionModel(config.vision, TorchAttention()),
            AudioModel(config.audio, TorchAttention()),
        ]
    assert sum(billions(stage) for stage in stages) == pytest.approx(4.0, abs=0.1)
