from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.engine.engine import Engine
from pipeline.engine.memory import CacheBudget
from pipeline.errors import ContextOverflow, InvalidRequest, MegrezError, Overloaded
from pipeline.types import Prompt, SamplingParams
from tests.pipeline.helpers import alone, drain, greedy, text_prompt, tokens


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

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("temperature", -0.1),
            ("temperature", float("nan")),
            ("temperature", float("inf")),
            ("top_k", -1),
            ("top_p", -0.1),
            ("top_p", 1.1),
            ("min_p", -0.1),
            ("min_p", 1.1),
            ("repetition_penalty", 0.0),
            ("repetition_penalty", float("inf")),
            ("presence_penalty", float("nan")),
            ("frequency_penalty", float("-inf")),
            ("min_tokens", -1),
            ("logprobs", -1),
            ("stop", ("a", "")),
        ],
    )
    def test_a_parameter_that_makes_no_sense(self, make: Callable[..., Engine], name: str, value: Any) -> None:
        engine = make()
        neighbour = engine.add(text_prompt(8), [], greedy(12))
        with pytest.raises(InvalidRequest, match=name) as caught:
            engine.add(text_prompt(9), [], replace(greedy(5), **{name: value}))
        assert caught.value.param == name
        outputs = drain(engine)
        assert list(outputs) == [neighbour]
        assert tokens(outputs[neighbour]) == alone(make, text_prompt(8), greedy(12))

    def test_more_tokens_at_least_than_there_can_be(self, make: Callable[..., Engine]) -> None:
        engine = make(max_context=50)
        engine.default_max_tokens = 5
        engine.add(text_prompt(30), [], SamplingParams(temperature=0, min_tokens=20))
        with pytest.raises(InvalidRequest, match="more than the 20 tokens") as caught:
            engine.add(text_prompt(30), [], SamplingParams(temperature=0, min_tokens=21))
        assert caught.value.param == "min_tokens"
        assert len(tokens(drain(engine)[0])) == 20

    @pytest.mark.parametrize("token", [-1, 512])
    def test_stop_tokens_outside_the_vocabulary(self, make: Callable[..., Engine], token: int) -> None:
        with pytest.raises(InvalidRequest, match="stop_token_ids"):
            make().add(text_prompt(3), [], greedy(1, stop_token_ids=(token,)))

    def test_a_full_queue(self, make: Callable[..., Engine]) -> None:
        engine = make(max_running=1, max_waiting=1)
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

    def test_the_time_of_a_step_is_handed_on(self, make: Callable[..., Engine]) -> None:
        assert make(step_seconds=0.25).scheduler.budget.step_seconds == 0.25

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


class TestLogits:
    def test_they_leave_nothing_behind(self, make: Callable[..., Engine]) -> None:
        engine = make()
        assert engine.logits(text_prompt(20), []).shape == (20, 512)
        assert engine.idle
        assert engine.blocks.used == 0

    def test_not_while_others_run(self, make: Callable[..., Engine]) -> None:
        engine = make()
        engine.add(text_prompt(8), [], greedy(4))
        with pytest.raises(MegrezError, match="other sequences are running"):
            engine.logits(text_prompt(20), [])
        assert len(tokens(drain(engine)[0])) == 4

    def test_a_prompt_may_fill_the_whole_context(self, make: Callable[..., Engine]) -> None:
        assert make(max_context=20).logits(text_prompt(20), []).shape == (20, 512)

    def test_a_prompt_over_the_context(self, make: Callable[..., Engine]) -> None:
        with pytest.raises(ContextOverflow):
            make(max_context=20).logits(text_prompt(21), [])
        with pytest.raises(ContextOverflow):
            make(kv_cache=CacheBudget(1), block_size=16).logits(text_prompt(17), [])
