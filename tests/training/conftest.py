from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.default_model import write_initial

from .tiny import write_tiny


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models are tiny: on a busy machine two threads wait for each other more than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint. Read only."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def mini_initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default checkpoint before training. Read only."""
    path = tmp_path_factory.mktemp("initial")
    write_initial(path)
    return path
