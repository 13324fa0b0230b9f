"""Random traffic for long: nothing stays behind. The model is one that costs nothing, all else is the engine itself."""

from __future__ import annotations

import gc
import random
from typing import Any

import psutil
import pytest
import torch

from pipeline.config import DecoderConfig
from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.errors import Overloaded
from pipeline.model.attention import PagedBatch
from pipeline.types import MediaSpan, Prompt, SamplingParams

VOCAB, WIDTH = 64, 8


class Costless:
    """Interface of DecoderModel. Its logits are picked from a few that are always the same."""

    block_size, block_size_multiple = 16, 16
    device = torch.device("cpu")
    config = DecoderConfig(
        hidden_size=WIDTH,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        vocab_size=VOCAB,
        max_position_embeddings=512,
    )

    def __init__(self) -> None:
        self._choices = torch.randn(97, VOCAB, generator=torch.Generator().manual_seed(0))
        self._step = 0

    def set_threads(self, threads: int) -> None: ...

    def warm_up(self, cache: Any) -> None: ...

    def cache_bytes(self, tokens: int) -> int:
        return tokens

    def new_cache(self, blocks: int, block_size: int) -> Any:
        return None

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(token_ids), WIDTH)

    def __call__(self, embeds: torch.Tensor, positions: torch.Tensor, cache: Any, batch: PagedBatch) -> torch.Tensor:
        return embeds

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self._step += 1
        return self._choices[torch.arange(self._step, self._step + len(hidden)) % len(self._choices)]


class Traffic:
    """Requests of every kind; some are left by their callers, a few are refused."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.engine = Engine(
            Costless(),
            EngineConfig(kv_cache=CacheBudget(blocks=60), max_batch_tokens=64, max_running=12, max_waiting=16),
            [1],
        )
        self.alive: set[int] = set()
        self.begun = self.ended = self.refused = 0

    def add(self) -> None:
        rng = self.rng
        tokens = [rng.randrange(2, VOCAB) for _ in range(rng.choice([1, 5, 17, 40, 120]))]
        if rng.random() < 0.3:  # one that begins as others do
            tokens = [7] * 48 + tokens
        media: list[torch.Tensor] = []
        spans: tuple[MediaSpan, ...] = ()
        if rng.random() < 0.2 and len(tokens) > 30:
            media, spans = [torch.zeros(20, WIDTH)], (MediaSpan(5, 20, 0, 0, f"picture {rng.randrange(50)}"),)
        rules = SamplingParams(
            max_tokens=rng.choice([1, 3, 20, 60]),
            temperature=rng.choice([0.0, 1.0]),
            top_p=rng.choice([0.9, 1.0]),
            repetition_penalty=rng.choice([1.0, 1.0, 1.3]),
            logprobs=rng.choice([None, None, 2]),
            seed=rng.randrange(1000),
        )
        try:
            self.alive.add(self.engine.add(Prompt(tokens, spans), media, rules))
            self.begun += 1
        except Overloaded:
            self.refused += 1

    def step(self) -> None:
        for output in self.engine.step():
            if output.finish_reason:
                self.alive.remove(output.sequence_id)
                self.ended += 1

    def leave(self) -> None:
        number = self.rng.choice(sorted(self.alive))
        assert self.engine.finish(number, "abort", forget=self.rng.random() < 0.1)
        self.alive.remove(number)
        self.ended += 1

    def run(self, requests: int) -> None:
        end = self.begun + requests
        while self.begun < end:
            for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2, 9])):
                self.add()
            if self.alive and self.rng.random() < 0.03:
                self.leave()
            self.step()
        while not self.engine.idle:
            self.step()


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("requests", [4000, pytest.param(86_400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_day_leaves_nothing_behind(requests: int) -> None:
    """86,400 requests are a day of one a second."""
    traffic = Traffic(seed=1)
    traffic.run(requests // 4)
    before = resident()
    for _ in range(3):
        traffic.run(requests // 4)
        engine = traffic.engine
        assert not traffic.alive
        assert engine.blocks.used == 0
        assert engine.blocks.free == engine.blocks.num_blocks
        assert not engine._alive
        assert not engine.runner._media
        assert not engine.scheduler.running
        assert not engine.scheduler.waiting
    assert traffic.ended == traffic.begun
    assert traffic.refused > 0
    assert engine.stats.preemptions > 0
    assert 0 < engine.stats.found_tokens < engine.stats.prompt_tokens
    assert resident() - before < 4 * 2**20
