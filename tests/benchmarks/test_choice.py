from __future__ import annotations

import pytest

from benchmarks.choice import chosen

COLOURS = {"A": "red", "B": "blue", "C": "dark green"}


@pytest.mark.parametrize(
    "answer",
    ["B", "b", " B. ", "(B)", "（B）", "**B**", "B. blue", "(B) blue", "B) blue", "B: it is blue", "Blue", "blue.",
     "The answer is B", "The answer is B.", "Answer: B", "answer: (B)", "The correct answer is **B**, not A",
     "正确答案是B", "答案：B。", "答案为Ｂ", "故选B", "我选择 B", "I think it must be B",
     "I see a blue circle", "是blue的", "B. A blue circle", "B, which is a blue circle on the left",
     "The answer is option B, not option A", "I would choose option B because of the sky", "选项B"],
)  # fmt: skip
def test_b(answer: str) -> None:
    assert chosen(answer, COLOURS) == "B"


@pytest.mark.parametrize(
    "answer",
    ["", "D", "E. pink", "A or B", "red or blue", "I don't know", "A dog stands in front of the house",
     "hundred", "bluebird", "The answer is a mystery", "A, B", "A, B, C", "B、C", "A. red\nB. blue\nC. dark green",
     "A and B are wrong", "A, B are wrong; C", "Option A is wrong; B is right"],
)  # fmt: skip
def test_none_or_several(answer: str) -> None:
    assert chosen(answer, COLOURS) is None


def test_the_last_announcement_counts() -> None:
    assert chosen("The answer is A? No: the answer is C", COLOURS) == "C"


def test_a_text_that_holds_a_letter() -> None:
    assert chosen("vitamin C", {"A": "vitamin C", "B": "vitamin D", "C": "iron"}) == "A"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("It is 1.5 m", "B"), ("0.5", None), ("about 5 m", "D"), ("2, I think", "C"), ("2,000", None)],
)
def test_numbers_are_whole(answer: str, letter: str | None) -> None:
    assert chosen(answer, {"A": "1", "B": "1.5", "C": "2", "D": "5"}) == letter


def test_an_option_in_a_long_answer() -> None:
    assert chosen("I would pick option A because the picture shows a red circle", COLOURS) == "A"


def test_without_options() -> None:
    assert chosen("The answer is H", {}) == "H"
    assert chosen("blue", {}) is None
