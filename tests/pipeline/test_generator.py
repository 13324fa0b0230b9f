from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.errors import CheckpointError, ContextOverflow, Overloaded
from pipeline.generator import Generator, StopStrings
from pipeline.processing.tokenizer import Tokenizer
from pipeline.types import Delta, ImageEmbeds, Message, SamplingParams
from tests.pipeline.helpers import finish, script

HELLO = [Message("user", "Hello")]
TEXT = "The quick brown fox. 敏捷的狐狸😀 jumps over!"


def run(generator: Generator, n: int = 1, **params: Any) -> list[Delta]:
    answers = generator.add(generator.prompt(HELLO, []), [], SamplingParams(**{"temperature": 0, **params}), n)
    return finish(generator, answers)


def say(generator: Generator, text: str, **params: Any) -> Delta:
    """The model's answer is `text` and the end of the turn."""
    ids = generator.tokenizer.encode(text, allow_special=False)
    script(generator, [*ids, generator.tokenizer.special("turn_end")])
    return run(generator, **{"max_tokens": 100, **params})[0]


def feed(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    filter_, shown = StopStrings(stops), ""
    for piece in pieces:
        text, stopped = filter_.push(piece)
        shown += text
        if stopped:
            assert filter_.flush() == ""
            return shown, True
    return shown + filter_.flush(), False


def cut(text: str, borders: list[int]) -> list[str]:
    ends = sorted(b % (len(text) + 1) for b in borders)
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


class TestStopStrings:
    @given(st.text("ab", max_size=25), st.text("ab", min_size=1, max_size=5), st.lists(st.integers(0, 99), max_size=12))
    def test_against_find(self, text: str, stop: str, borders: list[int]) -> None:
        at = text.find(stop)
        assert feed((stop,), cut(text, borders)) == ((text, False) if at < 0 else (text[:at], True))

    @given(
        st.text("abc", max_size=25),
        st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
        st.lists(st.integers(0, 99), max_size=12),
    )
    def test_several(self, text: str, stops: list[str], borders: list[int]) -> None:
        shown, stopped = feed(tuple(stops), cut(text, borders))
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        if stopped:
            assert any(text.startswith(stop, len(shown)) for stop in stops)
        else:
            assert shown == text

    def test_only_what_may_begin_a_stop_is_held_back(self) -> None:
        stops = StopStrings(("<end>",))
        assert [stops.push(piece)[0] for piece in ("a<", "en", "x<", "b", "<end")] == ["a", "", "<enx", "<b", ""]
        assert stops.flush() == "<end"


class TestText:
    def test_the_whole_answer(self, mini_generator: Generator) -> None:
        delta = say(mini_generator, TEXT)
        assert (delta.text, delta.finish_reason, delta.error) == (TEXT, "stop", None)

    def test_pieces_are_whole_characters(self, mini_generator: Generator) -> None:
        ids = mini_generator.tokenizer.encode("😀龘", allow_special=False)
        script(mini_generator, ids)
        answers = mini_generator.add(
            mini_generator.prompt(HELLO, []), [], SamplingParams(max_tokens=len(ids), temperature=0)
        )
        pieces = []
        while not mini_generator.idle:
            pieces += [(a, d.text) for a, d in mini_generator.step()]
        assert [a for a, _ in pieces] == answers * len(ids)
        assert "".join(text for _, text in pieces) == "😀龘"
        assert not any("\ufffd" in text for _, text in pieces)

    def test_half_a_character_at_the_limit_is_flushed(self, mini_generator: Generator) -> None:
        ids = mini_generator.tokenizer.encode("ok😀", allow_special=False)
        script(mini_generator, ids)
        delta = run(mini_generator, max_tokens=len(ids) - 1)[0]
        assert delta.finish_reason == "length"
        assert delta.text.startswith("ok\ufffd")

    def test_text_held_for_a_stop_string_is_flushed_at_the_limit(self, mini_generator: Generator) -> None:
        ids = mini_generator.tokenizer.encode("one two", allow_special=False)
        script(mini_generator, ids)
        delta = run(mini_generator, max_tokens=len(ids), stop=("two three",))[0]
        assert (delta.text, delta.finish_reason) == ("one two", "length")

    def test_text_held_for_a_stop_string_is_flushed_at_the_end_of_turn(self, mini_generator: Generator) -> None:
        delta = say(mini_generator, "one two", stop=("two three",))
        assert (delta.text, delta.finish_reason) == ("one two", "stop")


class TestStops:
    @pytest.mark.parametrize("stop", ["fox", "quick brown", "敏捷", "😀 j", " ", "T", "over!"])
    def test_a_stop_string_across_tokens(self, mini_generator: Generator, stop: str) -> None:
        delta = say(mini_generator, TEXT, stop=(stop,))
        assert (delta.text, delta.finish_reason) == (TEXT[: TEXT.find(stop)], "stop")

    def test_the_first_of_several(self, mini_generator: Generator) -> None:
        assert say(mini_generator, TEXT, stop=("jumps", "狐", "never")).text == TEXT[: TEXT.find("狐")]

    def test_a_stop_string_ends_the_sequence_at_once(self, mini_generator: Generator) -> None:
        delta = say(mini_generator, TEXT, stop=("quick",))
        whole = mini_generator.tokenizer.encode(TEXT, allow_special=False)
        assert len(delta.token_ids) < len(whole) // 2

    @given(stop=st.text("ab ", min_size=1, max_size=4), text=st.text("ab ", min_size=1, max_size=20))
    def test_against_find(self, mini_generator: Generator, stop: str, text: str) -> None:
        at = text.find(stop)
        assert say(mini_generator, text, stop=(stop,)).text == (text if at < 0 else text[:at])

    def test_a_stop_string_before_min_tokens_is_let_through(self, mini_generator: Generator) -> None:
        ids = mini_generator.tokenizer.encode("go stop go stop", allow_special=False)
        first = len(mini_generator.tokenizer.encode("go stop", allow_special=False))
        assert first < len(ids)
        delta = say(mini_generator, "go stop go stop", stop=("stop",), min_tokens=first + 1)
        assert delta.text == "go stop go "

    def test_a_stop_token_is_no_text(self, mini_generator: Generator) -> None:
        ids = mini_generator.tokenizer.encode("one two three", allow_special=False)
        script(mini_generator, ids)
        delta = run(mini_generator, max_tokens=len(ids), stop_token_ids=(ids[-1],))[0]
        assert delta.finish_reason == "stop"
        assert delta.text == mini_generator.tokenizer.decode(ids[:-1])
        assert delta.token_ids == tuple(ids)

    def test_the_end_of_turn_is_ignored_on_request(self, mini_generator: Generator) -> None:
        end = mini_generator.tokenizer.special("turn_end")
        ids = mini_generator.tokenizer.encode("one", allow_special=False)
        script(mini_generator, [*ids, end, *ids, end])
        delta = run(mini_generator, max_tokens=2 * len(ids) + 2, ignore_eos=True)[0]
        assert (delta.text, delta.finish_reason) == ("oneone", "length")

    def test_min_tokens(self, mini_generator: Generator) -> None:
        delta = run(mini_generator, max_tokens=30, min_tokens=30)[0]
        assert len(delta.token_ids) == 30


class TestAnswers:
    def test_several_answers_differ_and_a_seed_repeats_them(self, mini_generator: Generator) -> None:
        params = {"temperature": 2.0, "max_tokens": 24, "ignore_eos": True}
        first = run(mini_generator, n=3, seed=5, **params)
        assert [d.index for d in first] == [0, 1, 2]
        assert len({d.token_ids for d in first}) == 3
        assert run(mini_generator, n=3, seed=5, **params) == first
        assert run(mini_generator, n=1, seed=5, **params) == first[:1]
        assert run(mini_generator, n=3, seed=6, **params) != first

    def test_all_answers_or_none(self, mini_generator: Generator) -> None:
        model = mini_generator.engine.runner.model
        generator = Generator(
            mini_generator.tokenizer,
            Engine(model, EngineConfig(kv_cache=CacheBudget(64), max_running=1, max_waiting=1), []),
        )
        prompt = generator.prompt(HELLO, [])
        with pytest.raises(Overloaded):
            generator.add(prompt, [], SamplingParams(max_tokens=3), n=3)
        assert generator.idle
        assert not generator._answers
        assert len(finish(generator, generator.add(prompt, [], SamplingParams(max_tokens=3), n=2))) == 2

    def test_aborting(self, mini_generator: Generator) -> None:
        answers = mini_generator.add(mini_generator.prompt(HELLO, []), [], SamplingParams(max_tokens=50), n=2)
        mini_generator.step()
        mini_generator.abort(answers)
        mini_generator.abort(answers)
        assert [a.finish_reason for a in answers] == ["abort", "abort"]
        assert mini_generator.idle
        assert mini_generator.engine.blocks.used == 0

    def test_a_failed_sequence_says_why(self, mini_generator: Generator) -> None:
        bad = ImageEmbeds(torch.full((1, 64, 256), torch.nan), None)
        prompt = mini_generator.prompt([Message("user", "?", images=(0,))], [bad])
        delta = finish(mini_generator, mini_generator.add(prompt, [bad], SamplingParams(max_tokens=5)))[0]
        assert (delta.finish_reason, delta.text) == ("error", "")
        assert "finite" in (delta.error or "")

    def test_a_prompt_over_the_context(self, mini_generator: Generator) -> None:
        prompt = mini_generator.prompt([Message("user", "word " * 5000)], [])
        with pytest.raises(ContextOverflow):
            mini_generator.add(prompt, [], SamplingParams())


class TestLogprobs:
    def test_text_and_bytes(self, mini_generator: Generator) -> None:
        delta = say(mini_generator, TEXT, logprobs=3)
        # The end of the turn is no part of the answer.
        assert len(delta.logprobs) == len(delta.token_ids) - 1
        for item in delta.logprobs:
            assert len(item.top) == 3
            assert all(t.logprob <= 0 for t in item.top)
            assert [t.logprob for t in item.top] == sorted((t.logprob for t in item.top), reverse=True)
            assert all(t.text == t.raw.decode(errors="replace") for t in item.top)

    def test_chosen_tokens_spell_the_answer(self, mini_generator: Generator) -> None:
        delta = run(mini_generator, max_tokens=20, logprobs=0, ignore_eos=True)[0]
        chosen = [mini_generator.tokenizer.token_text(t) for t in delta.token_ids]
        assert [(item.chosen.text, item.chosen.raw) for item in delta.logprobs] == chosen
        assert all(item.top == () for item in delta.logprobs)

    def test_greedy_chooses_the_best(self, mini_generator: Generator) -> None:
        for item in run(mini_generator, max_tokens=20, logprobs=1)[0].logprobs:
            assert item.chosen == item.top[0]

    def test_none(self, mini_generator: Generator) -> None:
        assert run(mini_generator, max_tokens=5)[0].logprobs == ()


def test_the_tokenizer_must_fit_the_vocabulary(golden_path: Path, mini_path: Path, tmp_path: Path) -> None:
    for file in golden_path.iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(mini_path / "tokenizer.json", tmp_path)
    with pytest.raises(CheckpointError, match=f"{Tokenizer(mini_path).vocab_size} tokens"):
        Generator.from_pretrained(tmp_path)


def test_the_checkpoints_ends_are_kept(golden_path: Path, tmp_path: Path) -> None:
    for file in golden_path.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [77, 78]}))
    generator = Generator.from_pretrained(tmp_path)
    special = generator.tokenizer.special
    assert generator.engine.eos_ids == {77, 78, special("turn_end"), special("eos")}


def test_a_stop_string_that_begins_before_min_tokens_is_met() -> None:
    stops = StopStrings(("ab",))
    assert stops.push("xab", armed=False) == ("xab", False)  # whole, and too early
    assert stops.push("ya", armed=False) == ("y", False)
    assert stops.push("bz") == ("", True)
