from __future__ import annotations

import pytest

from benchmarks.choice import chosen

COLOURS = {"A": "red", "B": "blue", "C": "dark green"}


@pytest.mark.parametrize(
    "answer",
    ["B", "b", " B. ", "(B)", "（B）", "**B**", "B. blue", "(B) blue", "B) blue", "B: it is blue", "Blue", "blue.",
     "The answer is B", "The answer is B.", "Answer: B", "answer: (B)", "The correct answer is **B**, not A",
     "正确答案是B", "答案：B。", "答案为Ｂ", "故选B", "我选择 B", "I think it must be B",
     "I see a blue circle", "是blue的"],
)  # fmt: skip
def test_b(answer: str) -> None:
    assert chosen(answer, COLOURS) == "B"


@pytest.mark.parametrize(
    "answer",
    ["", "D", "E. pink", "A or B", "red or blue", "I don't know", "A dog stands in front of the house",
     "hundred", "bluebird", "The answer is a mystery"],
)  # fmt: skip
def test_none_or_several(answer: str) -> None:
    assert chosen(answer, COLOURS) is None


def test_the_last_announcement_counts() -> None:
    assert chosen("The answer is A? No: the answer is C", COLOURS) == "C"


def test_a_text_that_holds_a_letter() -> None:
    assert chosen("vitamin C", {"A": "vitamin C", "B": "vitamin D", "C": "iron"}) == "A"


def test_without_options() -> None:
    assert chosen("The answer is H", {}) == "H"
    assert chosen("blue", {}) is None
