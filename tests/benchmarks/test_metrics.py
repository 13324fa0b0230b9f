"""Values that can be checked by hand."""

from __future__ import annotations

import pytest

from benchmarks.metrics import METRICS, Score, anls, cer, choice, contains, exact, wer


@pytest.mark.parametrize("answer", ["red", " red\n", "red.", "red。", "ｒｅｄ", "red ."])
def test_exact(answer: str) -> None:
    assert exact(answer, ["blue", "red"])


@pytest.mark.parametrize("answer", ["", "Red", "red blue", "re d", "red!"])
def test_not_exact(answer: str) -> None:
    assert not exact(answer, ["blue", "red"])


def test_contains() -> None:
    assert contains("It reads: ＯＰＥＮ today.", ["open", "closed"])
    assert contains("首都是北京。", ["北京。"])
    assert not contains("It reads: op en", ["open"])
    assert not contains("", ["open"])


@pytest.mark.parametrize("reference", [".", "。"])
def test_a_full_stop_may_be_the_reference(reference: str) -> None:
    assert exact(f" {reference}", [reference])
    assert not exact("", [reference])
    assert contains(f"one{reference} two", [reference])
    assert not contains("one two", [reference])


def test_choice() -> None:
    options = {"A": "red", "B": "blue"}
    assert choice("(B)", ["B"], options)
    assert choice("B.", ["blue"], options)
    assert choice("I see blue.", ["B. blue"], options)
    assert not choice("A", ["B"], options)
    assert not choice("no idea", ["B"], options)


def test_anls() -> None:
    assert anls("Hello World", ["hello  world"]) == 1
    assert anls("hallo", ["hello"]) == pytest.approx(1 - 1 / 5)
    assert anls("hallo", ["nothing like it", "hello"]) == pytest.approx(1 - 1 / 5)
    assert anls("abcd", ["abxy"]) == 0  # a distance of exactly 0.5 is too far
    assert anls("abcde", ["abcxy"]) == pytest.approx(1 - 2 / 5)
    assert anls("", ["abc"]) == 0


def test_wer() -> None:
    assert wer("The cat sat.", ["the cat sat on the mat"]) == Score(3, 6)
    assert wer("the dog sat on a mat today", ["the cat sat on the mat"]) == Score(3, 6)  # two replaced, one inserted
    assert wer("", ["the cat"]) == Score(2, 2)
    assert wer("the cat", ["a dog sat", "a cat"]) == Score(1, 2)  # the nearer reference


def test_wer_normalizes_as_whisper_does() -> None:
    assert wer("um, Mister Smith won't pay 21 dollars", ["Mr. Smith will not pay twenty-one dollars"]).points == 0
    assert wer("the gray color", ["the grey colour"]) == Score(0, 3)
    assert wer("because", ["cause"]) == Score(1, 1)  # other normalizers take these for one
    assert wer("it was $20", ["it was twenty dollars"]).points == 0


def test_cer() -> None:
    assert cer("今天天气很好", ["今天，天气 很好！"]) == Score(0, 6)
    assert cer("今天天汽好", ["今天天气很好。"]) == Score(2, 6)
    assert cer("用ＡＢＣ１２３", ["用 abc 123"]) == Score(0, 7)
    assert cer("", ["你好"]) == Score(2, 2)
    assert cer("价格是3.5元.", ["价格是35元"]) == Score(1, 6)
    assert cer("价格是3.5元。", ["价格 是３．５元"]) == Score(0, 7)
    assert cer("2026.11.27", ["20261127"]) == Score(0, 8)
    assert cer("你\u200b好\ufeff...", ["你好"]) == Score(0, 2)
    assert cer("你好吗", ["您们都好", "你好"]) == Score(1, 2)


def test_empty_after_normalization() -> None:
    assert wer("hello", ["um"]) == Score(1, 0)
    assert cer("", ["。"]) == Score(0, 0)


@pytest.mark.parametrize("name", METRICS)
def test_perfect_wrong_and_failed(name: str) -> None:
    metric = METRICS[name]
    options = {"A": "red", "B": "blue"} if name == "choice" else {}
    right, wrong = (metric.score(answer, ["A"], options) for answer in ("A", "B"))
    failed = metric.failed(["A"], options)
    assert metric.right(right)
    assert not metric.right(wrong)
    assert not metric.right(failed)
    assert failed.points / failed.out_of == (1 if metric.is_error_rate else 0)
    assert metric.reaches(right.points / right.out_of, 0.5)
    assert not metric.reaches(failed.points / failed.out_of, 0.5)


def test_a_failure_is_wrong_even_where_silence_is_right() -> None:
    assert METRICS["wer"].failed(["um"], {}).points == 1
