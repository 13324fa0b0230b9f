from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.engine.sampler import Sample, Sampler, uniform
from pipeline.errors import GenerationFailed
from pipeline.model.decoder import DecoderModel
from pipeline.types import SamplingParams
from tests.pipeline.helpers import drain, sample_one, sampled, text_prompt, tokens

from .sequences import VOCAB, logits, sequence


def distribution(scores: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The slow reference: temperature, min_p, top_k, top_p, one after the other, float64."""
    scores = scores.astype(np.float64) / params.temperature
    p = np.exp(scores - scores.max())
    p /= p.sum()
    p[p < params.min_p * p.max()] = 0
    if params.top_k:
        order = np.argsort(-p, kind="stable")
        p[order[params.top_k :]] = 0
    p /= p.sum()
    if params.top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = 0.0
        for token in order:
            mass = p[token]
            if before >= params.top_p:
                p[token] = 0
            before += mass
    return p / p.sum()


def draws(scores: torch.Tensor, count: int, **params: Any) -> list[int]:
    """Independent draws: the same logits at `count` positions."""
    sampler = Sampler([])
    return [sample_one(sampler, scores, sequence([1] * n, seed=99, **params)).token_id for n in range(1, count + 1)]


def chi_square(drawn: list[int], p: np.ndarray) -> tuple[float, int]:
    """(statistic, degrees of freedom); rare tokens are joined into one cell."""
    counts = np.bincount(drawn, minlength=len(p))
    assert not counts[p == 0].any(), "a token that the filters took out was drawn"
    expected = p * len(drawn)
    common = expected >= 5
    cells = [(counts[i], expected[i]) for i in np.flatnonzero(common)]
    if (~common).any() and expected[~common].sum() >= 1:
        cells.append((counts[~common].sum(), expected[~common].sum()))
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in cells), len(cells) - 1


class TestGreedy:
    @given(st.integers(0, 1000))
    def test_the_most_probable(self, seed: int) -> None:
        scores = logits(seed)
        token = sample_one(Sampler([]), scores, sequence(temperature=0, top_k=3, top_p=0.1, seed=seed)).token_id
        assert token == int(scores.argmax())

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_logits_that_are_no_numbers(self, value: float) -> None:
        scores = logits(0)
        scores[3] = value
        for temperature in (0.0, 1.0):
            with pytest.raises(GenerationFailed, match="finite"):
                sample_one(Sampler([]), scores, sequence(temperature=temperature))

    def test_the_logits_are_left_as_they_are(self) -> None:
        scores = logits(0)
        kept = scores.clone()
        made = sequence(output=[4, 5], repetition_penalty=2.0, frequency_penalty=1.0, min_tokens=9, temperature=0)
        sample_one(Sampler([1]), scores, made)
        assert torch.equal(scores, kept)


class TestFilters:
    @given(
        st.integers(0, 10_000),
        st.sampled_from([0.3, 1.0, 2.5]),
        st.integers(0, VOCAB + 3),
        st.sampled_from([0.05, 0.3, 0.7, 0.95, 1.0]),
        st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    )
    def test_what_is_left_is_the_references(
        self, seed: int, temperature: float, top_k: int, top_p: float, min_p: float
    ) -> None:
        params = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        scores = logits(seed)
        p = distribution(scores.numpy(), SamplingParams(**params))  # type: ignore[arg-type]
        # Inverse CDF: each draw is the token whose stretch of the sorted probabilities it hits.
        order = np.argsort(-p, kind="stable")
        sums = np.cumsum(p[order])
        for n in range(1, 60):
            made = sequence([1] * n, seed=seed, **params)
            point = uniform(made.seed_key, made.length)
            if np.abs(sums - point).min() < 1e-5:
                continue  # on the border, where rounding decides
            assert sample_one(Sampler([]), scores, made).token_id == order[np.searchsorted(sums, point, side="right")]

    @pytest.mark.parametrize(
        "params",
        [
            {},
            {"temperature": 0.5},
            {"temperature": 2.0, "top_k": 5},
            {"top_p": 0.6},
            {"min_p": 0.2},
            {"temperature": 1.5, "top_k": 12, "top_p": 0.8, "min_p": 0.02},
        ],
    )
    def test_frequencies_follow_the_distribution(self, params: dict[str, float]) -> None:
        scores = logits(5, scale=1.5)
        drawn = draws(scores, 3000, **params)
        statistic, freedom = chi_square(
            drawn,
            distribution(scores.numpy(), SamplingParams(**params)),  # type: ignore[arg-type]
        )
        # Wilson and Hilferty's bound at about 1e-5; the draws are fixed by their seed.
        f = max(freedom, 1)
        assert statistic < f * (1 - 2 / (9 * f) + 4.3 * (2 / (9 * f)) ** 0.5) ** 3

    def test_the_reference_would_notice_a_wrong_distribution(self) -> None:
        scores = logits(5, scale=1.5)
        drawn = draws(scores, 3000, temperature=1.3)
        statistic, freedom = chi_square(drawn, distribution(scores.numpy(), SamplingParams()))
        assert statistic > 5 * freedom

    @pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 1e-9}, {"top_p": 0.0}, {"min_p": 1.0}])
    def test_the_narrowest_filters_leave_the_best_token(self, params: dict[str, float]) -> None:
        scores = logits(3)
        assert set(draws(scores, 20, **params)) == {int(scores.argmax())}

    def test_a_top_k_over_the_vocabulary_filters_nothing(self) -> None:
        scores = logits(3)
        assert draws(scores, 30, top_k=10**6) == draws(scores, 30) == draws(scores, 30, top_k=-1)

    def test_extreme_temperatures(self) -> None:
        scores = logits(3)
        assert set(draws(scores, 20, temperature=1e-4)) == {int(scores.argmax())}
        assert len(set(draws(scores, 200, temperature=1e4))) > VOCAB / 2


class TestLogprobs:
    def test_they_are_of_the_raw_distribution(self) -> None:
        scores = logits(1)
        made = sequence(output=[2], temperature=0.5, top_k=2, repetition_penalty=3.0, logprobs=4)
        sample = sample_one(Sampler([]), scores, made)
        wanted = scores.numpy().astype(np.float64)
        wanted = wanted - np.log(np.exp(wanted).sum())
        assert sample.logprobs is not None
        assert sample.logprobs.chosen.token_id == sample.token_id
        assert sample.logprobs.chosen.logprob == pytest.approx(wanted[sample.token_id], abs=1e-5)
        best = np.argsort(-wanted)[:4]
        assert [t.token_id for t in sample.logprobs.top] == best.tolist()
        assert [t.logprob for t in sample.logprobs.top] == pytest.approx(wanted[best], abs=1e-5)

    @pytest.mark.parametrize(("asked", "given"), [(0, 0), (3, 3), (1000, VOCAB)])
    def test_how_many(self, asked: int, given: int) -> None:
        sample = sample_one(Sampler([]), logits(1), sequence(temperature=0, logprobs=asked))
        assert sample.logprobs is not None
        assert len(sample.logprobs.top) == given

    def test_none(self) -> None:
        assert sample_one(Sampler([]), logits(1), sequence(temperature=0)).logprobs is None


class TestSeeds:
    def test_uniform_depends_on_its_arguments_alone(self) -> None:
        assert uniform((1, 2), 3) == uniform((1, 2), 3)
        assert len({uniform((seed, choice), n) for seed in (1, 2) for choice in (0, 1) for n in range(50)}) == 200

    def test_seeds_of_any_size(self) -> None:
        for seed in (-1, 0, 2**63, 2**64, -(2**70)):
            assert 0 <= uniform((seed, 0), 10**9) < 1

    def test_uniform_is_uniform(self) -> None:
        values = [uniform((3, 0), n) for n in range(4000)]
        counts = np.histogram(values, 20, (0, 1))[0]
        assert ((counts - 200) ** 2 / 200).sum() < 60

    def test_neighbouring_positions_are_independent(self) -> None:
        values = np.array([uniform((3, 0), n) for n in range(4000)])
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06

    def test_the_same_seed_and_position_draw_the_same(self) -> None:
        first = sample_one(Sampler([]), logits(2), sequence([1, 2, 3], [4], seed=5)).token_id
        again = sample_one(Sampler([]), logits(2), sequence([9, 9], [8, 7], seed=5)).token_id
        assert first == again


class TestBatchMates:
    def run(self, model: DecoderModel, neighbours: int, **config: Any) -> tuple[list[int], int]:
        engine = Engine(model, EngineConfig(**{"kv_cache": CacheBudget(64), "max_batch_tokens": 64, **config}), [])
        for i in range(neighbours):
            if i == neighbours // 2:
                wanted = engine.add(text_prompt(12, seed=100), [], sampled(24, seed=11))
            engine.add(text_prompt(5 + 3 * i, seed=i), [], sampled(10 + i, seed=i))
        if not neighbours:
            wanted = engine.add(text_prompt(12, seed=100), [], sampled(24, seed=11))
        return tokens(drain(engine)[wanted]), engine.stats.preemptions

    def test_the_same_alone_and_among_ten(self, golden_decoder: DecoderModel) -> None:
        alone, _ = self.run(golden_decoder, 0)
        assert len(set(alone)) > 5
        assert self.run(golden_decoder, 10)[0] == alone

    def test_the_same_after_preemptions(self, golden_decoder: DecoderModel) -> None:
        alone, _ = self.run(golden_decoder, 0)
        crowded, preemptions = self.run(golden_decoder, 10, kv_cache=CacheBudget(12), block_size=8)
        assert preemptions > 0
        assert crowded == alone

    def test_choices_differ(self, golden_decoder: DecoderModel) -> None:
        engine = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(64)), [])
        for choice in range(4):
            engine.add(text_prompt(12), [], sampled(16, seed=1), choice=choice)
        answers = {tuple(tokens(outputs)) for outputs in drain(engine).values()}
        assert len(answers) == 4

    def test_without_a_seed_requests_differ(self, golden_decoder: DecoderModel) -> None:
        engine = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(64)), [])
        for _ in range(3):
            engine.add(text_prompt(12), [], sampled(16, seed=None))
        assert len({tuple(tokens(outputs)) for outputs in drain(engine).values()}) == 3


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-40, 5e-324])
def test_tiny_temperatures_are_greedy(temperature: float) -> None:
    scores = logits(5)
    drawn = sample_one(Sampler([]), scores, sequence(temperature=temperature, seed=1)).token_id
    assert drawn == int(scores.argmax())


class TestBatches:
    def test_requests_of_every_kind_beside_each_other(self) -> None:
        """What each one says is what it says alone, log-probabilities included."""
        kinds: list[dict[str, Any]] = [
            {"temperature": 0},
            {"seed": 1, "logprobs": 3},
            {"seed": 2, "top_k": 4, "output": [3, 3, 5], "repetition_penalty": 1.7},
            {"temperature": 0, "logprobs": 0, "output": [3], "min_tokens": 4, "stop_ids": frozenset([9])},
            {"seed": 3, "temperature": 2.5, "top_p": 0.5, "output": [1, 2], "frequency_penalty": 0.8, "logprobs": 24},
            {"seed": 4, "min_p": 0.1, "presence_penalty": -1.0},
        ]
        scores = torch.stack([logits(10 + i) for i in range(len(kinds))])
        sampler = Sampler([7])
        alone = [sample_one(sampler, row, sequence(**kind)) for row, kind in zip(scores, kinds, strict=True)]
        assert sampler.sample(scores, [sequence(**kind) for kind in kinds]) == alone

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_one_whose_logits_are_no_numbers(self, value: float) -> None:
        kinds: list[dict[str, Any]] = [{"temperature": 0}, {"seed": 1, "logprobs": 2}, {"seed": 2}, {"seed": 3}]
        scores = torch.stack([logits(i) for i in range(4)])
        alone = [sample_one(Sampler([]), row, sequence(**kind)) for row, kind in zip(scores, kinds, strict=True)]
        scores[2, 11] = value
        samples = Sampler([]).sample(scores, [sequence(**kind) for kind in kinds])
        assert isinstance(samples.pop(2), GenerationFailed)
        assert samples == [*alone[:2], alone[3]]

    def test_very_large_logits_are_numbers(self) -> None:
        scores = torch.tensor([3e38, 3e38, -1.0])[None]
        assert Sampler([]).sample(scores, [sequence(temperature=0)]) == [Sample(0, None)]


def test_an_engine_draws_a_token_before_anyone_asks(
    golden_decoder: DecoderModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has to be compiled is compiled by then."""
    calls = []
    monkeypatch.setattr("pipeline.engine.draw.choose", lambda *arguments: calls.append(arguments[0].shape))
    Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(8)), [])
    assert calls == [(1, golden_decoder.config.vocab_size)]
