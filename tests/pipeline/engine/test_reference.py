"""Reference tokens, however the work is cut up."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model.decoder import DecoderModel
from pipeline.types import MediaSpan, Prompt
from tests.golden import reference
from tests.pipeline.helpers import drain, golden_prompt, greedy, sampled, text_prompt, tokens

GREEDY48: list[int] = reference()["decoder/greedy48"].tolist()


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
@example([(28, 1)], 1, 6, 75, [])  # two tokens whose float32 logits are equal but for rounding
def test_any_batching_gives_the_same_tokens(
    golden_decoder: DecoderModel,
    work: list[tuple[int, int]],
    block_size: int,
    budget: int,
    cache_tokens: int,
    aborts: list[int],
) -> None:
    """Arrivals, aborts, chunks and preemptions never change a token of those that remain. In float64: of two tokens
    as likely as each other, float32's rounding, which depends on the batch, would choose."""
    model = deepcopy(golden_decoder).double()
    config = EngineConfig(
        kv_cache=CacheBudget(-(-cache_tokens // block_size)),
        block_size=block_size,
        max_batch_tokens=budget,
        max_running=6,
    )
    engine = Engine(model, config, [])
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
        single = Engine(model, EngineConfig(kv_cache=CacheBudget(16)), [])
        single.add(text_prompt(length, seed=i), [], sampled(answer, seed=i))
        wanted = tokens(drain(single)[0])
        assert outputs[i] == (wanted[: len(outputs[i])] if i in gone else wanted)
