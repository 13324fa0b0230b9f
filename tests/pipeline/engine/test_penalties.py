from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.sampler import Sampler
from pipeline.types import MediaSpan
from tests.pipeline.helpers import sample_one

from .sequences import VOCAB, logits, sequence


@given(
    st.integers(0, 1000),
    st.lists(st.integers(0, VOCAB - 1), max_size=6),
    st.lists(st.integers(0, VOCAB - 1), max_size=8),
    st.sampled_from([1.0, 1.2, 2.0, 0.5]),
    st.sampled_from([0.0, 0.7, -1.0]),
    st.sampled_from([0.0, 0.4, -0.5]),
)
def test_against_the_definitions(
    seed: int, prompt: list[int], output: list[int], repetition: float, presence: float, frequency: float
) -> None:
    scores = logits(seed)
    wanted = scores.numpy().astype(np.float64)
    for token in set(prompt) | set(output):
        wanted[token] = wanted[token] / repetition if wanted[token] > 0 else wanted[token] * repetition
    for token, times in Counter(output).items():
        wanted[token] -= presence + frequency * times
    made = sequence(
        prompt,
        output,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        temperature=0,
    )
    token = sample_one(Sampler([]), scores, made).token_id
    assert wanted[token] == pytest.approx(wanted.max(), abs=1e-5)


def test_the_sampled_tokens_are_counted_as_they_come() -> None:
    sampler, scores = Sampler([]), torch.zeros(VOCAB)
    made = sequence([0], presence_penalty=1.0, temperature=0)
    for _ in range(VOCAB):
        made.output.append(sample_one(sampler, scores, made).token_id)
    assert sorted(made.output) == list(range(VOCAB)), "each token is penalized once it has been used"


def test_media_placeholders_are_no_text() -> None:
    scores = torch.zeros(VOCAB)
    scores[0] = 1.0
    made = sequence(
        [5, 0, 0, 6], spans=(MediaSpan(1, 2, 0, 0),), repetition_penalty=5.0, presence_penalty=0.0, temperature=0
    )
    assert sample_one(Sampler([]), scores, made).token_id == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_prompt_of_media_alone(temperature: float) -> None:
    """Nothing has been seen yet: the repetition penalty changes nothing."""
    made = sequence([0, 0], spans=(MediaSpan(0, 2, 0, 0),), repetition_penalty=1.2, temperature=temperature)
    plain = sequence([0, 0], temperature=temperature)
    assert sample_one(Sampler([]), logits(0), made) == sample_one(Sampler([]), logits(0), plain)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_end_before(temperature: float) -> None:
    scores = torch.full((VOCAB,), -20.0)
    scores[[7, 9]] = 20.0
    sampler = Sampler([7])
    params = {"min_tokens": 2, "temperature": temperature, "stop_ids": frozenset({7, 9})}
    assert sample_one(sampler, scores, sequence(output=[1], **params)).token_id not in (7, 9)
    assert sample_one(sampler, scores, sequence(output=[1, 1], **params)).token_id in (7, 9)


def test_stop_ids_beyond_the_vocabulary() -> None:
    made = sequence(min_tokens=2, temperature=0, stop_ids=frozenset({10**6}))
    assert sample_one(Sampler([10**6]), logits(0), made).token_id == int(logits(0).argmax())
