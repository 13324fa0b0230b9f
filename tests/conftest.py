"""Fixtures that many rooms share. The golden checkpoint is written once a session."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

# Ray reads these when it is first imported: clusters of the tests have a token of their own.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

import pytest
import torch
from hypothesis import HealthCheck, settings

from pipeline.config import ModelConfig
from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.generator import Generator
from pipeline.model.attention import TorchAttention
from pipeline.model.decoder import DecoderModel
from pipeline.model.weights import load_stage
from pipeline.omni import Omni
from pipeline.processing.tokenizer import Tokenizer
from training.tokenizer import make_tokenizer

from .golden import write_golden

# A slow machine is no failure; fixtures here are read-only, so examples may share them.
settings.register_profile(
    "megrez", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("megrez")

ROOT = Path(__file__).parent.parent
TEXT = ROOT / "training" / "text"


@pytest.fixture(scope="session")
def mini_path() -> Path:
    """The default checkpoint."""
    return ROOT / "checkpoints" / "megrez-omni-mini"


@pytest.fixture(scope="session")
def golden_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint, with a tokenizer that fits its vocabulary of 512."""
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    lines = [line for file in sorted(TEXT.glob("*.txt")) for line in file.read_text("utf-8").splitlines()]
    make_tokenizer(512, lines).save_pretrained(tokenizer)
    return write_golden(tmp_path_factory.mktemp("golden"), tokenizer)


@pytest.fixture(scope="session")
def tokenizer(mini_path: Path) -> Tokenizer:
    return Tokenizer(mini_path)


@pytest.fixture(scope="session")
def golden_omni(golden_path: Path) -> Omni:
    return Omni.from_pretrained(golden_path)


@pytest.fixture(scope="session")
def mini_omni(mini_path: Path) -> Omni:
    return Omni.from_pretrained(mini_path)


@pytest.fixture(scope="session")
def golden_decoder(golden_path: Path) -> DecoderModel:
    config = ModelConfig.from_pretrained(golden_path).decoder
    return load_stage(
        lambda: DecoderModel(config, TorchAttention()), golden_path, dtype=torch.float32, device=torch.device("cpu")
    )


@pytest.fixture
def mini_generator(mini_omni: Omni) -> Generator:
    """A fresh engine over the default checkpoint's weights, which are loaded once."""
    loaded = mini_omni._generator
    config = EngineConfig(kv_cache=CacheBudget(64))
    return Generator(loaded.tokenizer, Engine(loaded.engine.runner.model, config, sorted(loaded.engine.eos_ids)))
