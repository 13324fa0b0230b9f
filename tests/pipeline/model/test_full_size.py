"""The released architecture, built without memory: its sizes are the model card's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.engine.full_size import CONFIG
from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import VisionModel


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
