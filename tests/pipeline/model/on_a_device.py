"""Nothing is computed: where tensors stand, what they look like, and when the host waits for them.

Run by test_graphed_decoder.py.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model.attention import FlashAttention
from pipeline.model.decoder import DecoderModel
from pipeline.model.graphed_decoder import GraphedDecoder
from pipeline.types import MediaSpan, SamplingParams
from tests.pipeline.helpers import greedy, text_prompt

from . import fake_device
from .recorder import Recorder


def made(config_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setitem(sys.modules, "flash_attn", fake_device.flash_attn())
    config = ModelConfig.from_pretrained(config_path).decoder
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = DecoderModel(config, FlashAttention())
    finally:
        torch.set_default_dtype(torch.float32)
    graphed = GraphedDecoder(model, Recorder(), ladder=(1, 2, 4))
    settings = EngineConfig(kv_cache=CacheBudget(blocks=8), max_batch_tokens=16, max_running=8)
    return Engine(graphed, settings, [1])


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"temperature": 0.7, "seed": 1},
        {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "seed": 1},
        {"temperature": 0.0, "repetition_penalty": 1.2, "frequency_penalty": 0.1, "min_tokens": 3},
    ],
)
def test_the_host_waits_for_nothing_but_the_tokens(
    golden_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, float]
) -> None:
    """Prefill in chunks with media from the host, steps of both kinds, decodes with graphs and without."""
    with fake_device.fake_device() as device, fake_device.answers(token=5) as asked:
        engine = made(golden_path, device, monkeypatch)
        for i in range(6):
            rules = SamplingParams(max_tokens=3 + i, ignore_eos=True, **params)  # type: ignore[arg-type]
            prompt = replace(text_prompt(9 + 5 * i, seed=i), spans=(MediaSpan(3, 6, 0, 0),))
            engine.add(prompt, [torch.empty(6, engine.runner.model.config.hidden_size)], rules)
        steps = 0
        while not engine.idle:
            before = len(asked)
            outputs = engine.step()
            steps += 1
            assert all(o.error is None for o in outputs), outputs
            assert len(asked) - before == bool(outputs)
        assert sum(asked) == sum(3 + i for i in range(6))
        assert steps > 8


def test_what_would_wait_is_noticed(golden_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_device.fake_device() as device:
        engine = made(golden_path, device, monkeypatch)
        engine.add(text_prompt(9), [], greedy(2))
        (output,) = engine.step()
    assert output.finish_reason == "error"


def test_steps_that_nobody_waits_for_teach_nothing(golden_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they take is how long launching does; the first that is waited for pays for all before it."""
    with fake_device.fake_device() as device, fake_device.answers(token=5):
        engine = made(golden_path, device, monkeypatch)
        seen: list[tuple[int, int]] = []
        monkeypatch.setattr(
            engine.scheduler.budget, "observe", lambda decodes, prefill, _: seen.append((decodes, prefill))
        )
        engine.add(text_prompt(40), [], greedy(3))
        while not engine.idle:
            engine.step()
        assert engine.stats.steps == 5
        assert seen == [(1, 0), (1, 0)], "neither the three chunks of the prompt, of which the last gives a token"
