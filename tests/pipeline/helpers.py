"""Small things that the engine's tests share."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pipeline.driver import merge
from pipeline.engine.engine import Engine, TokenOutput
from pipeline.engine.sampler import Sample, Sampler
from pipeline.engine.sequence import Sequence
from pipeline.errors import GenerationFailed
from pipeline.generator import Answer, Generator
from pipeline.types import Delta, MediaSpan, Prompt, SamplingParams
from tests.golden import reference


def greedy(max_tokens: int, **changes: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, **changes)


def sampled(max_tokens: int, **changes: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, ignore_eos=True, **{"temperature": 1.0, "seed": 7, **changes})


def text_prompt(length: int, seed: int = 0, vocab: int = 512) -> Prompt:
    rng = random.Random(seed)
    return Prompt([rng.randrange(16, vocab) for _ in range(length)])


def golden_prompt() -> tuple[Prompt, list[torch.Tensor]]:
    """The golden prompt: text, picture, text, sound, text; media are the reference's own embeds."""
    ref = reference()
    image = torch.from_numpy(ref["image/sample_image/embeds"]).flatten(0, 1)
    audio = torch.from_numpy(ref["audio/sample_audio/embeds"])
    before, between, after = (ref[f"decoder/text_{part}"].tolist() for part in ("before", "between", "after"))
    ids = [*before, *[0] * len(image), *between, *[0] * len(audio), *after]
    spans = (
        MediaSpan(len(before), len(image), 0, 0),
        MediaSpan(len(before) + len(image) + len(between), len(audio), 1, 0),
    )
    return Prompt(ids, spans), [image, audio]


def sample_one(sampler: Sampler, logits: torch.Tensor, sequence: Sequence) -> Sample:
    """logits: [vocab]."""
    (sample,) = sampler.sample(logits[None], [sequence])
    if isinstance(sample, GenerationFailed):
        raise sample
    return sample


def drain(engine: Engine, limit: int = 5000) -> dict[int, list[TokenOutput]]:
    """Steps until idle. What each sequence put out; each one must have ended once, as its last."""
    outputs: dict[int, list[TokenOutput]] = defaultdict(list)
    for _ in range(limit):
        if engine.idle:
            break
        for output in engine.step():
            outputs[output.sequence_id].append(output)
    assert engine.idle, "the engine did not come to an end"
    assert engine.blocks.used == 0
    for items in outputs.values():
        assert [o.finish_reason is not None for o in items] == [False] * (len(items) - 1) + [True]
    return dict(outputs)


def tokens(outputs: list[TokenOutput]) -> list[int]:
    return [o.token_id for o in outputs if o.token_id is not None]


def alone(make: Callable[..., Engine], prompt: Prompt, params: SamplingParams) -> list[int]:
    """The tokens that come when nothing else runs."""
    engine = make()
    engine.add(prompt, [], params)
    return tokens(drain(engine)[0])


def script(generator: Generator, *answers: list[int]) -> None:
    """Lets answer number i say exactly `answers[i]`: text is then known to the letter. The model
    and the rest of the sampler (logprobs) still run."""
    sampler = generator.engine.sampler

    def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[Sample | GenerationFailed]:
        said = [answers[s.seed_key[1] % len(answers)][len(s.output)] for s in sequences]
        samples = Sampler.sample(sampler, logits, sequences)
        return [replace(s, token_id=i) if isinstance(s, Sample) else s for s, i in zip(samples, said, strict=True)]

    sampler.sample = sample  # type: ignore[method-assign]


def finish(generator: Generator, answers: list[Answer]) -> list[Delta]:
    """Steps until the answers have ended; their pieces joined, each checked to end once."""
    pieces: dict[Answer, list[Delta]] = {answer: [] for answer in answers}
    while not generator.idle:
        for answer, delta in generator.step():
            pieces[answer].append(delta)
    for items in pieces.values():
        assert [d.finish_reason is not None for d in items] == [False] * (len(items) - 1) + [True]
    assert generator.engine.blocks.used == 0
    assert not generator._answers
    return [merge(items)[0] for items in pieces.values()]
