"""What a sequence says depends on nothing but itself: not on who shares its steps, how its prompt is cut, what is found
in the cache, or how often it was preempted. The native kernels make it so to the last bit of every logit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pipeline.engine.engine import Engine, EngineConfig, TokenOutput
from pipeline.engine.memory import CacheBudget
from pipeline.engine.runner import Model
from pipeline.omni import Omni
from pipeline.types import MediaSpan, Prompt, SamplingParams
from tests.pipeline.helpers import drain

SCHEDULES = {16: 400, 64: 100}
"""By tokens a block: small blocks are often full, and run out."""

ANSWER = 8


@dataclass(frozen=True)
class Asked:
    prompt: Prompt
    media: list[torch.Tensor]
    params: SamplingParams


@pytest.fixture(scope="module")
def model(mini_omni: Omni) -> Iterator[Model]:
    model = mini_omni._generator.engine.runner.model
    yield model
    model.set_threads(1)


def prompts(model: Model, count: int) -> list[Asked]:
    """Many begin alike, by text, by a picture, or as a conversation goes on; some answers are drawn, some greedy."""
    rng, vocab = random.Random(1), model.config.vocab_size
    rows = [model.embed(torch.randint(0, vocab, (64,), generator=torch.Generator().manual_seed(i))) for i in range(2)]
    common = [rng.randrange(16, vocab) for _ in range(140)]
    asked = []
    for number in range(count):
        text = common[: rng.choice((0, 3, 64, 65, 130))] + [rng.randrange(16, vocab) for _ in range(rng.randint(1, 60))]
        spans: tuple[MediaSpan, ...] = ()
        media: list[torch.Tensor] = []
        if number % 3 == 2:
            picture = rng.randrange(2)
            text = [1] * 64 + text
            spans, media = (MediaSpan(0, 64, 0, 0, f"picture {picture}"),), [rows[picture]]
        params = SamplingParams(
            max_tokens=ANSWER, temperature=rng.choice((0.0, 0.0, 0.9)), seed=number, ignore_eos=True, logprobs=2
        )
        asked.append(Asked(Prompt(text, spans), media, params))
    return asked


def alone(model: Model, asked: Asked, block_size: int) -> list[TokenOutput]:
    config = EngineConfig(kv_cache=CacheBudget(tokens=512), block_size=block_size, prefix_caching=False)
    engine = Engine(model, config, [])
    engine.add(asked.prompt, asked.media, asked.params)
    outputs = []
    while not engine.idle:
        outputs += engine.step()
    return outputs


def said(outputs: list[TokenOutput]) -> list[Any]:
    """Tokens, and the logarithms of their probabilities: equal ones come from equal logits."""
    return [(o.token_id, o.logprobs) for o in outputs]


@pytest.mark.parametrize("block_size", SCHEDULES)
def test_nothing_else_decides(model: Model, block_size: int) -> None:
    everybody = prompts(model, 12)
    wanted = [said(alone(model, asked, block_size)) for asked in everybody]
    seen: dict[str, int] = {"preemptions": 0, "found": 0, "shared steps": 0}
    for number in range(SCHEDULES[block_size]):
        rng = random.Random(number)
        model.set_threads(rng.choice((1, 1, 2)))
        running = rng.randint(1, 5)
        config = EngineConfig(
            kv_cache=CacheBudget(tokens=rng.choice((320, 448, 1024))),
            block_size=block_size,
            prefix_caching=rng.random() < 0.7,
            max_batch_tokens=max(running, rng.choice((5, 17, 64, 100, 512))),
            max_running=running,
            step_seconds=rng.choice((None, 1e-4)),
        )
        engine = Engine(model, config, [])
        coming = rng.sample(range(len(everybody)), rng.randint(2, 5))
        ids: dict[int, int] = {}
        outputs: dict[int, list[TokenOutput]] = {}
        aborted = None
        while coming or not engine.idle:
            if coming and rng.random() < 0.5:
                who = coming.pop()
                asked = everybody[who]
                ids[engine.add(asked.prompt, asked.media, asked.params)] = who
            elif not engine.idle:
                for output in engine.step():
                    outputs.setdefault(output.sequence_id, []).append(output)
                seen["shared steps"] += engine.stats.last_batch > 1
            if ids and aborted is None and rng.random() < 0.02:
                aborted = rng.choice(list(ids))
                engine.finish(aborted, "abort")
            if engine.scheduler.running and rng.random() < 0.03:  # as when blocks run out
                engine.scheduler._preempt(engine.scheduler.running[-1])
        for identity, who in ids.items():
            if identity != aborted:
                assert said(outputs[identity]) == wanted[who], f"schedule {number}, sequence {who}"
        assert engine.blocks.used == 0
        seen["preemptions"] += engine.stats.preemptions
        seen["found"] += engine.stats.found_tokens
    assert min(seen.values()) > SCHEDULES[block_size] / 5, f"the schedules were too tame: {seen}"


@pytest.mark.parametrize("tokens", [64, 128])
def test_twins_that_end_with_a_block_write_the_same(model: Model, tokens: int) -> None:
    """Two of three compute their last token at the same time, in the block that the first one has computed, while that
    one goes on."""
    rng = random.Random(tokens)
    prompt = Prompt([rng.randrange(16, model.config.vocab_size) for _ in range(tokens)])
    params = SamplingParams(max_tokens=ANSWER, temperature=0.9, seed=1, ignore_eos=True, logprobs=2)
    wanted = said(alone(model, Asked(prompt, [], params), 64))
    model.set_threads(2)
    engine = Engine(model, EngineConfig(kv_cache=CacheBudget(tokens=1024), block_size=64), [])
    for together in (3, 1):
        ids = [engine.add(prompt, [], params) for _ in range(together)]
        outputs = drain(engine)
        for identity in ids:
            assert said(outputs[identity]) == wanted
            assert outputs[identity][0].found == (tokens - 1 if identity else 0)
