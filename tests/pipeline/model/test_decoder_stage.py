from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError, MegrezError
from pipeline.model.attention import TorchAttention
from pipeline.model.decoder import DecoderModel
from pipeline.model.decoder_stage import load_decoder
from pipeline.model.native_decoder import NativeDecoder
from pipeline.types import WeightStorage
from tests.golden import relative_error

from .texts import Texts

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def small_heads(golden_path: Path, tmp_path: Path) -> Path:
    """The golden checkpoint's tensors, read as heads of 8, which the kernels can't compute."""
    config = json.loads((golden_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 32, "num_key_value_heads": 8}))
    (tmp_path / "model.safetensors").symlink_to(golden_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("attention", ["auto", "native"])
def test_native_on_a_cpu_in_float32(golden_path: Path, golden_decoder: DecoderModel, attention: str) -> None:
    config, model = load_decoder(golden_path, attention=attention, **CPU)
    assert config == ModelConfig.from_pretrained(golden_path)
    assert isinstance(model, NativeDecoder)
    assert model.storage == "float32"
    a, b = (Texts(m, [20]).all(20) for m in (model, golden_decoder))
    assert relative_error(a, b.numpy()) < 2e-5


@pytest.mark.parametrize(
    ("weights", "storage"),
    [("auto", "bfloat16"), ("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8")],
)
def test_the_storage_of_weights(mini_path: Path, weights: WeightStorage, storage: str) -> None:
    model = load_decoder(mini_path, attention="auto", weights=weights, **CPU)[1]
    assert isinstance(model, NativeDecoder)
    assert model.storage == storage


@pytest.mark.parametrize(("attention", "dtype"), [("torch", "float32"), ("torch", "bfloat16"), ("auto", "bfloat16")])
def test_torch(golden_path: Path, attention: str, dtype: str) -> None:
    config, model = load_decoder(golden_path, device="cpu", dtype=dtype, attention=attention)
    assert config == ModelConfig.from_pretrained(golden_path)
    assert isinstance(model, DecoderModel)
    assert isinstance(model.attention, TorchAttention)
    assert model.weight.dtype == getattr(torch, dtype)


class TestMisfit:
    def test_auto_falls_back_to_torch(self, small_heads: Path, caplog: pytest.LogCaptureFixture) -> None:
        model = load_decoder(small_heads, attention="auto", **CPU)[1]
        assert isinstance(model, DecoderModel)
        assert model.weight.dtype == torch.float32
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == [
            "the decoder runs on torch, not on the native kernels: its head size of 8 is not a multiple of 16"
        ]

    def test_native_is_an_error(self, small_heads: Path) -> None:
        with pytest.raises(MegrezError, match="can't compute this checkpoint: its head size of 8"):
            load_decoder(small_heads, attention="native", **CPU)

    def test_nobody_says_that_nothing_is_wrong(self, golden_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        load_decoder(golden_path, attention="auto", **CPU)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_few_bits_have_no_other_kernels(self, small_heads: Path) -> None:
        with pytest.raises(MegrezError, match="weights: int8 needs the native kernels"):
            load_decoder(small_heads, attention="auto", weights="int8", **CPU)


@pytest.mark.parametrize(("device", "dtype"), [("cuda", "float32"), ("cpu", "bfloat16"), ("cuda", "bfloat16")])
def test_native_elsewhere(golden_path: Path, device: str, dtype: str) -> None:
    with pytest.raises(MegrezError, match="'native' computes on device: cpu in dtype: float32"):
        load_decoder(golden_path, device=device, dtype=dtype, attention="native")


@pytest.mark.parametrize(
    ("attention", "device", "dtype"),
    [
        ("torch", "cpu", "float32"),
        ("auto", "cpu", "bfloat16"),
        ("auto", "cuda", "float32"),
        ("flash", "cpu", "float32"),
    ],
)
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_weights_elsewhere(golden_path: Path, attention: str, device: str, dtype: str, weights: WeightStorage) -> None:
    with pytest.raises(MegrezError, match=f"weights: {weights} needs the native kernels"):
        load_decoder(golden_path, device=device, dtype=dtype, attention=attention, weights=weights)


def test_unknown_names(golden_path: Path) -> None:
    with pytest.raises(MegrezError, match="choose auto, native, torch or flash"):
        load_decoder(golden_path, attention="fast", **CPU)
    with pytest.raises(MegrezError, match="dtype must be one of"):
        load_decoder(golden_path, device="cpu", dtype="float16", attention="auto")


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_decoder(tmp_path, attention="auto", **CPU)
