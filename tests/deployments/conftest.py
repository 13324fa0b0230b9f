from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ModelConfig

from .fakes import House


@pytest.fixture(scope="session")
def config(mini_path: Path) -> ModelConfig:
    return ModelConfig.from_pretrained(mini_path)


@pytest.fixture
def house(config: ModelConfig) -> House:
    return House(config)
