from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from deployments.decoder import LanguageDecoder
from deployments.encoder import AudioEncoder, VisionEncoder
from deployments.settings import AppArgs
from deployments.turns import TURN

DEFAULT = 0.005


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(DEFAULT)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("stage", [LanguageDecoder, VisionEncoder, AudioEncoder])
@pytest.mark.parametrize(("device", "turn"), [("cpu", DEFAULT), ("meta", TURN)])
def test_replicas_that_wait_for_a_device(stage: type, device: str, turn: float) -> None:
    """Before they load anything: a device without memory loads nothing."""
    args = AppArgs.model_construct(device=device, checkpoint="nowhere")
    with pytest.raises(Exception):  # noqa: B017, PT011
        stage.func_or_class(args)
    assert sys.getswitchinterval() == pytest.approx(turn)
