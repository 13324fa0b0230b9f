from __future__ import annotations

import pytest

from tests.golden import tensors

from .stored import Weights


@pytest.fixture(scope="module")
def golden_tensors() -> Weights:
    return tensors()


@pytest.fixture
def weights(golden_tensors: Weights) -> Weights:
    return dict(golden_tensors)
