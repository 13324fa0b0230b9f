from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import AudioProcessorConfig, ModelConfig
from pipeline.errors import Cancelled
from pipeline.model.attention import TorchAttention
from pipeline.model.audio import AudioModel
from pipeline.model.weights import load_stage
from pipeline.omni import Omni
from pipeline.processing.audio import log_mel
from tests.golden import DATA, META, reference, relative_error


@pytest.fixture(scope="module")
def model(golden_path: Path) -> AudioModel:
    config = ModelConfig.from_pretrained(golden_path).audio
    return load_stage(
        lambda: AudioModel(config, TorchAttention()), golden_path, dtype=torch.float32, device=torch.device("cpu")
    )


def mel(samples: int, seed: int = 0) -> torch.Tensor:
    wave = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    return torch.from_numpy(log_mel(wave, AudioProcessorConfig()))


@pytest.mark.parametrize("name", META["audios"])
def test_golden_embeds(golden_omni: Omni, name: str) -> None:
    embeds = golden_omni.encode_audio(DATA / META["audios"][name]["path"])
    assert len(embeds) == META["audios"][name]["span"]
    assert relative_error(embeds, reference()[f"audio/{name}/embeds"]) < 1e-4


@pytest.mark.parametrize("samples", [480, 640, 799, 800, 1120, 16_000, 24_576, 100_001])
def test_span_length(model: AudioModel, samples: int) -> None:
    mel_frames = samples // 160
    frames = (mel_frames - 1) // 2 + 1
    assert len(model.encode([mel(samples)])[0]) == (frames - 2) // 2 + 1 + 2


def test_30_seconds_are_750_embeddings(model: AudioModel) -> None:
    assert len(model.encode([mel(480_000)])[0]) == 752


@settings(max_examples=15)
@given(st.lists(st.integers(480, 12_000), min_size=2, max_size=5))
def test_a_span_is_the_same_alone_and_among_others(model: AudioModel, lengths: list[int]) -> None:
    mels = [mel(n, seed=i) for i, n in enumerate(lengths)]
    together = model.encode(mels)
    for one, out in zip(mels, together, strict=True):
        torch.testing.assert_close(model.encode([one])[0], out, rtol=1e-4, atol=1e-5)


def test_every_span_is_framed(model: AudioModel) -> None:
    begin, end = model.audio.audio_bos_eos_token.weight
    for out in model.encode([mel(1000), mel(3000)]):
        torch.testing.assert_close(out[0], begin)
        torch.testing.assert_close(out[-1], end)


def test_without_frame_and_pool(golden_path: Path) -> None:
    config = ModelConfig.from_pretrained(golden_path).audio
    bare = AudioModel(replace(config, avg_pool=False, add_audio_bos_eos_token=False), TorchAttention())
    assert not any("bos_eos" in name for name, _ in bare.named_parameters())
    for parameter in bare.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    assert bare.encode([mel(1600)])[0].shape == (5, 256)


def test_a_checkpoint_stops_the_batch(model: AudioModel) -> None:
    def stop() -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        model.encode([mel(1000)], stop)
