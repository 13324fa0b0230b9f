from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.engine.scheduler import Chunk
from pipeline.errors import ContextOverflow, InvalidRequest, MegrezError, Overloaded
from pipeline.model.decoder import DecoderModel
from pipeline.types import MediaSpan, Prompt, SamplingParams
from tests.golden import reference
from tests.pipeline.helpers import drain, golden_prompt, greedy, sampled, text_prompt, tokens

GREEDY48: list[int] = reference()["decoder/greedy48"].tolist()


@pytest.fixture
def make(golden_decoder: DecoderModel) -> Callable[..., Engine]:
    def build(eos: tuple[int, ...] = (), **config: Any) -> Engine:
        return Engine(golden_decoder, EngineConfig(**{"kv_cache": CacheBudget(128), **config}), eos)

    return build


def alone(make: Callable[..., Engine], prompt: Prompt, params: SamplingParams) -> list[int]:
    engine = make()
    engine.add(prompt, [], params)
    return tokens(drain(engine)[0])


class TestGolden:
    """The 48 reference tokens, however the work is cut up."""

    @pytest.mark.parametrize("budget", [32, 33, 64, 127, 256, 533, 1024])
    def test_chunk_sizes(self, make: Callable[..., Engine], budget: int) -> None:
        engine = make(max_batch_tokens=budget)
        engine.add(*golden_prompt(), greedy(48))
        assert tokens(drain(engine)[0]) == GREEDY48
        assert engine.stats.steps == -(-533 // budget) + 47

    @pytest.mark.parametrize("block_size", [1, 7, 16])
    def test_block_sizes(self, make: Callable[..., Engine], block_size: int) -> None:
        engine = make(block_size=block_size, kv_cache=CacheBudget(-(-600 // block_size)), max_batch_tokens=200)
        engine.add(*golden_prompt(), greedy(48))
        assert tokens(drain(engine)[0]) == GREEDY48

    @pytest.mark.parametrize("block_size", [1, 7, 16])
    def test_in_a_batch_with_others(self, make: Callable[..., Engine], block_size: int) -> None:
        engine = make(block_size=block_size, kv_cache=CacheBudget(2400 // block_size), max_batch_tokens=96)
        for i in range(3):
            engine.add(text_prompt(30 + 40 * i, seed=i), [], sampled(40, seed=i))
        engine.step()
        wanted = engine.add(*golden_prompt(), greedy(48))
        for i in range(3):
            engine.add(text_prompt(10 + 25 * i, seed=10 + i), [], greedy(60))
        assert tokens(drain(engine)[wanted]) == GREEDY48

    @pytest.mark.parametrize("block_size", [1, 7, 16])
    def test_under_preemption(self, make: Callable[..., Engine], block_size: int) -> None:
        engine = make(block_size=block_size, kv_cache=CacheBudget(700 // block_size), max_batch_tokens=128)
        for i in range(2):
            engine.add(text_prompt(40, seed=i), [], greedy(60))
        engine.step()
        wanted = engine.add(*golden_prompt(), greedy(48))
        sequence = engine._alive[wanted]
        outputs = drain(engine)
        assert sequence.preemptions > 0, "the test must preempt the golden sequence"
        assert tokens(outputs[wanted]) == GREEDY48

    def test_twins(self, make: Callable[..., Engine]) -> None:
        engine = make(kv_cache=CacheBudget(256), max_batch_tokens=100)
        for _ in range(3):
            engine.add(*golden_prompt(), greedy(48))
        assert all(tokens(outputs) == GREEDY48 for outputs in drain(engine).values())

    @pytest.mark.parametrize("block_size", [13, 41, 533])
    def test_a_prompt_that_ends_with_a_block_is_found_whole(self, make: Callable[..., Engine], block_size: int) -> None:
        engine = make(block_size=block_size, kv_cache=CacheBudget(3 * (600 // block_size + 1)), max_batch_tokens=100)
        prompt, media = golden_prompt()
        keyed = Prompt(prompt.token_ids, tuple(replace(span, key=str(span.media)) for span in prompt.spans))
        for asked in (2, 1):  # two at the same time, one of which waits for the other; one afterwards
            for _ in range(asked):
                engine.add(keyed, media, greedy(48))
            for number, outputs in drain(engine).items():
                assert tokens(outputs) == GREEDY48
                assert outputs[0].found == (532 if number else 0)

    def test_media_rows_from_an_offset(self, make: Callable[..., Engine]) -> None:
        """One medium laid out as several spans, as the slices of a picture are."""
        prompt, media = golden_prompt()
        image, audio = prompt.spans
        slices = tuple(MediaSpan(image.start + 64 * i, 64, 0, 64 * i) for i in range(7))
        engine = make(max_batch_tokens=50)
        engine.add(Prompt(prompt.token_ids, (*slices, audio)), media, greedy(48))
        assert tokens(drain(engine)[0]) == GREEDY48


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=6),
    st.sampled_from([1, 5, 16]),
    st.integers(6, 60),
    st.integers(75, 300),
    st.lists(st.integers(0, 30), max_size=3),
)
def test_any_batching_gives_the_same_tokens(
    golden_decoder: DecoderModel,
    work: list[tuple[int, int]],
    block_size: int,
    budget: int,
    cache_tokens: int,
    aborts: list[int],
) -> None:
    """Arrivals, aborts, chunks and preemptions never change a token of those that remain."""
    config = EngineConfig(
        kv_cache=CacheBudget(-(-cache_tokens // block_size)),
        block_size=block_size,
        max_batch_tokens=budget,
        max_running=6,
    )
    engine = Engine(golden_decoder, config, [])
    outputs: dict[int, list[int]] = {}
    for i, (length, answer) in enumerate(work):
        outputs[engine.add(text_prompt(length, seed=i), [], sampled(answer, seed=i))] = []
    gone = set()
    for step in range(2000):
        if engine.idle:
            break
        for number in aborts:
            if number == step and engine.finish(number % len(work), "abort"):
                gone.add(number % len(work))
        for output in engine.step():
            assert output.sequence_id not in gone
            assert output.token_id is not None
            outputs[output.sequence_id].append(output.token_id)
    assert engine.idle
    assert engine.blocks.used == 0
    for i, (length, answer) in enumerate(work):
        single = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(16)), [])
        single.add(text_prompt(length, seed=i), [], sampled(answer, seed=i))
        wanted = tokens(drain(single)[0])
        assert outputs[i] == (wanted[: len(outputs[i])] if i in gone else wanted)


class TestDoor:
    def test_over_the_context(self, make: Callable[..., Engine]) -> None:
        engine = make(max_context=100)
        with pytest.raises(ContextOverflow, match="context is 100 tokens; the prompt has 60 and 41") as caught:
            engine.add(text_prompt(60), [], greedy(41))
        assert caught.value.param == "max_tokens"
        with pytest.raises(ContextOverflow) as caught:
            engine.add(text_prompt(100), [], greedy(1))
        assert caught.value.param == "messages"
        engine.add(text_prompt(60), [], greedy(40))
        assert len(tokens(drain(engine)[0])) == 40

    def test_over_the_cache(self, make: Callable[..., Engine]) -> None:
        engine = make(kv_cache=CacheBudget(4), block_size=16)
        with pytest.raises(ContextOverflow, match="KV cache of 64 tokens"):
            engine.add(text_prompt(60), [], greedy(5))
        with pytest.raises(ContextOverflow, match="KV cache of 64 tokens"):
            engine.add(text_prompt(64), [], SamplingParams())
        engine.add(text_prompt(60), [], greedy(4))
        assert len(tokens(drain(engine)[0])) == 4

    def test_without_a_limit_the_context_is_filled(self, make: Callable[..., Engine]) -> None:
        engine = make(max_context=50)
        engine.add(text_prompt(30), [], SamplingParams(temperature=0))
        outputs = drain(engine)[0]
        assert (len(outputs), outputs[-1].finish_reason) == (20, "length")

    def test_without_a_limit_the_cache_is_filled(self, make: Callable[..., Engine]) -> None:
        engine = make(kv_cache=CacheBudget(3), block_size=16)
        engine.add(text_prompt(30), [], SamplingParams(temperature=0))
        assert len(drain(engine)[0]) == 18

    @pytest.mark.parametrize("wanted", [0, -1])
    def test_an_answer_of_no_tokens(self, make: Callable[..., Engine], wanted: int) -> None:
        with pytest.raises(InvalidRequest) as caught:
            make().add(text_prompt(3), [], greedy(wanted))
        assert caught.value.param == "max_tokens"
        assert "KV cache" not in str(caught.value), "the cache is not what is wrong"

    def test_an_empty_prompt(self, make: Callable[..., Engine]) -> None:
        with pytest.raises(InvalidRequest, match="empty"):
            make().add(Prompt([]), [], greedy(1))

    @pytest.mark.parametrize("token", [-1, 512])
    def test_stop_tokens_outside_the_vocabulary(self, make: Callable[..., Engine], token: int) -> None:
        with pytest.raises(InvalidRequest, match="stop_token_ids"):
            make().add(text_prompt(3), [], greedy(1, stop_token_ids=(token,)))

    def test_a_full_queue(self, make: Callable[..., Engine]) -> None:
        engine = make(max_waiting=2)
        for i in range(2):
            engine.add(text_prompt(3, seed=i), [], greedy(2))
        with pytest.raises(Overloaded):
            engine.add(text_prompt(3), [], greedy(2))
        outputs = drain(engine)
        assert [len(o) for o in outputs.values()] == [2, 2]
        engine.add(text_prompt(3), [], greedy(2))

    @pytest.mark.parametrize(
        "config", [{"max_batch_tokens": 8, "max_running": 9}, {"max_context": 5000}, {"block_size": 0}]
    )
    def test_a_configuration_that_can_not_work(self, make: Callable[..., Engine], config: dict[str, int]) -> None:
        with pytest.raises((MegrezError, AssertionError)):
            make(**config)

    def test_refused_requests_leave_nothing(self, make: Callable[..., Engine]) -> None:
        engine = make(max_context=10)
        with pytest.raises(ContextOverflow):
            engine.add(text_prompt(20), [], greedy(5))
        assert engine.idle
        assert engine.step() == []


class TestEnds:
    def test_a_stop_token(self, make: Callable[..., Engine]) -> None:
        out = alone(make, text_prompt(9), greedy(20))
        stop = out[5]
        first = out.index(stop)
        engine = make()
        engine.add(text_prompt(9), [], greedy(20, stop_token_ids=(stop,)))
        outputs = drain(engine)[0]
        assert (tokens(outputs), outputs[-1].finish_reason) == (out[: first + 1], "stop")

    def test_end_of_sequence_and_ignoring_it(self, make: Callable[..., Engine]) -> None:
        out = alone(make, text_prompt(9), greedy(20))
        first = out.index(out[5])
        engine = make(eos=(out[5],))
        engine.add(text_prompt(9), [], replace(greedy(20), ignore_eos=False))
        engine.add(text_prompt(9), [], greedy(20))
        stopped, ignored = drain(engine).values()
        assert tokens(stopped) == out[: first + 1]
        assert tokens(ignored) == out

    def test_min_tokens_keeps_the_end_away(self, make: Callable[..., Engine]) -> None:
        out = alone(make, text_prompt(9), greedy(20))
        engine = make(eos=(out[0],))
        engine.add(text_prompt(9), [], SamplingParams(max_tokens=20, temperature=0, min_tokens=7))
        outputs = tokens(drain(engine)[0])
        assert len(outputs) > 7
        assert out[0] not in outputs[:7]

    def test_aborting(self, make: Callable[..., Engine]) -> None:
        engine = make(max_running=1, max_batch_tokens=64)
        running, waiting = (engine.add(text_prompt(100, seed=i), [], greedy(9)) for i in range(2))
        engine.step()
        assert engine.blocks.used > 0
        assert engine.finish(running, "abort")
        assert engine.blocks.used == 0
        assert engine.finish(waiting, "abort")
        assert not engine.finish(waiting, "abort")
        assert not engine.finish(12345, "abort")
        assert engine.idle

    def test_stats(self, make: Callable[..., Engine]) -> None:
        engine = make(max_running=1)
        engine.add(text_prompt(20), [], greedy(5))
        engine.add(text_prompt(20), [], greedy(5))
        engine.step()
        stats = engine.stats
        assert (stats.running, stats.waiting, stats.steps) == (1, 1, 1)
        assert stats.last_batch == 1
        assert (stats.blocks_used, stats.blocks_total) == (2, 128)


def poison(engine: Engine, victim: int, change: Callable[[list[Chunk], Callable[..., Any]], Any]) -> None:
    """Lets `change` stand in for the runner in each step that `victim` takes part in."""
    original = engine.runner.run

    def run(chunks: list[Chunk]) -> Any:
        if any(chunk.sequence.id == victim for chunk in chunks):
            return change(chunks, original)
        return original(chunks)

    engine.runner.run = run  # type: ignore[method-assign]


class TestIsolation:
    """One bad sequence ends with an error; its neighbours' tokens stay what they are alone."""

    def add_three(self, engine: Engine) -> None:
        for i in range(3):
            engine.add(text_prompt(8 + i, seed=i), [], greedy(12))

    def check(self, make: Callable[..., Engine], engine: Engine, victim: int = 1) -> str:
        outputs = drain(engine)
        for i in range(3):
            if i != victim:
                assert tokens(outputs[i]) == alone(make, text_prompt(8 + i, seed=i), greedy(12))
        last = outputs[victim][-1]
        assert (last.token_id, last.finish_reason) == (None, "error")
        assert last.error
        return last.error

    @pytest.mark.parametrize("after", [0, 4])
    def test_logits_that_are_no_numbers(self, make: Callable[..., Engine], after: int) -> None:
        engine = make()
        self.add_three(engine)

        def spoil(chunks: list[Chunk], run: Callable[..., Any]) -> Any:
            logits = run(chunks).clone()
            row = [c.sequence.id for c in chunks if c.samples].index(1)
            if len(chunks[row].sequence.output) >= after:
                logits[row, 3] = torch.nan
            return logits

        poison(engine, 1, spoil)
        assert "finite" in self.check(make, engine)

    def test_embeds_that_are_no_numbers(self, make: Callable[..., Engine]) -> None:
        engine = make()
        self.add_three(engine)
        bad = engine.add(Prompt([0] * 4 + [20], (MediaSpan(0, 4, 0, 0),)), [torch.full((4, 256), torch.nan)], greedy(5))
        outputs = drain(engine)
        assert outputs[bad][-1].finish_reason == "error"
        for i in range(3):
            assert tokens(outputs[i]) == alone(make, text_prompt(8 + i, seed=i), greedy(12))

    @pytest.mark.parametrize("after", [0, 4])
    def test_an_exception_in_the_forward(self, make: Callable[..., Engine], after: int) -> None:
        engine = make()
        self.add_three(engine)

        def explode(chunks: list[Chunk], run: Callable[..., Any]) -> Any:
            if any(c.sequence.id == 1 and len(c.sequence.output) >= after for c in chunks):
                raise RuntimeError("kernel failed")
            return run(chunks)

        poison(engine, 1, explode)
        error = self.check(make, engine)
        assert "kernel" not in error, "our inner words stay inside"

    def test_an_exception_in_the_midst_of_a_prefill(self, make: Callable[..., Engine]) -> None:
        engine = make(max_batch_tokens=32)
        self.add_three(engine)
        long = engine.add(text_prompt(200, seed=9), [], greedy(5))

        def explode(chunks: list[Chunk], run: Callable[..., Any]) -> Any:
            if any(c.sequence.id == long and c.start > 60 for c in chunks):
                raise RuntimeError("kernel failed")
            return run(chunks)

        poison(engine, long, explode)
        outputs = drain(engine)
        assert outputs[long][-1].finish_reason == "error"
        for i in range(3):
            assert tokens(outputs[i]) == alone(make, text_prompt(8 + i, seed=i), greedy(12))

    @pytest.mark.parametrize("after", [0, 4])
    def test_an_exception_in_the_sampler(self, make: Callable[..., Engine], after: int) -> None:
        """Neighbours that were sampled before it in the same step keep that token."""
        engine = make()
        self.add_three(engine)
        original = engine.sampler.sample

        def sample(logits: torch.Tensor, sequences: Any) -> Any:
            if any(s.id == 1 and len(s.output) >= after for s in sequences):
                raise RuntimeError("sampler failed")
            return original(logits, sequences)

        engine.sampler.sample = sample  # type: ignore[method-assign]
        self.check(make, engine)

    def test_an_exception_in_the_sampler_beside_a_neighbour_at_its_end(self, make: Callable[..., Engine]) -> None:
        engine = make()
        short = engine.add(text_prompt(8), [], greedy(1))
        bad = engine.add(text_prompt(9), [], greedy(5))
        original = engine.sampler.sample

        def sample(logits: torch.Tensor, sequences: Any) -> Any:
            if any(s.id == bad for s in sequences):
                raise RuntimeError("sampler failed")
            return original(logits, sequences)

        engine.sampler.sample = sample  # type: ignore[method-assign]
        outputs = drain(engine)
        assert [o.finish_reason for o in outputs[short]] == ["length"]
        assert [o.finish_reason for o in outputs[bad]] == ["error"]

    @pytest.mark.parametrize("params", [{"logprobs": -1}, {"temperature": -1.0}, {"temperature": float("nan")}])
    def test_parameters_out_of_range(self, make: Callable[..., Engine], params: dict[str, Any]) -> None:
        """Refused at the door or failed alone: never a neighbour's loss."""
        engine = make()
        neighbour = engine.add(text_prompt(8), [], greedy(12))
        with contextlib.suppress(InvalidRequest):
            engine.add(text_prompt(9), [], replace(greedy(5), **params))
        assert tokens(drain(engine)[neighbour]) == alone(make, text_prompt(8), greedy(12))

    def test_token_ids_outside_the_vocabulary(self, make: Callable[..., Engine]) -> None:
        engine = make()
        neighbour = engine.add(text_prompt(8), [], greedy(12))
        with contextlib.suppress(InvalidRequest):
            engine.add(Prompt([5, 10**6]), [], greedy(5))
        assert tokens(drain(engine)[neighbour]) == alone(make, text_prompt(8), greedy(12))

    def test_blocks_of_the_failed_are_clean_for_the_next(self, make: Callable[..., Engine]) -> None:
        """NaN that one sequence wrote into the cache does not reach whoever gets its blocks."""
        engine = make(kv_cache=CacheBudget(2))
        engine.add(Prompt([0] * 20, (MediaSpan(0, 20, 0, 0),)), [torch.full((20, 256), torch.nan)], greedy(5))
        assert drain(engine)[0][-1].finish_reason == "error"
        engine.add(text_prompt(8), [], greedy(12))
        assert tokens(drain(engine)[1]) == alone(make, text_prompt(8), greedy(12))


class TestLogits:
    def test_they_leave_nothing_behind(self, make: Callable[..., Engine]) -> None:
        engine = make()
        assert engine.logits(text_prompt(20), []).shape == (20, 512)
        assert engine.idle
        assert engine.blocks.used == 0

    def test_a_prompt_may_fill_the_whole_context(self, make: Callable[..., Engine]) -> None:
        assert make(max_context=20).logits(text_prompt(20), []).shape == (20, 512)

    def test_a_prompt_over_the_context(self, make: Callable[..., Engine]) -> None:
        with pytest.raises(ContextOverflow):
            make(max_context=20).logits(text_prompt(21), [])
        with pytest.raises(ContextOverflow):
            make(kv_cache=CacheBudget(1), block_size=16).logits(text_prompt(17), [])
