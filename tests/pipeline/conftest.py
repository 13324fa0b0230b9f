from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models are tiny: on a busy machine two threads wait for each other more than they compute."""
    torch.set_num_threads(1)
