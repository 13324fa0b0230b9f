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
     "B\n\nExplanation: A is red and C is green.", "**B**\nA is wrong.", "The correct option is B, because A is red.",
     "A blue one", "A big blue circle", "The answer is option B, not option A",
     "I would choose option B because of the sky", "选项B"],
)  # fmt: skip
def test_b(answer: str) -> None:
    assert chosen(answer, COLOURS) == "B"


@pytest.mark.parametrize(
    "answer",
    ["", "D", "E. pink", "A or B", "red or blue", "I don't know", "A dog stands in front of the house",
     "hundred", "bluebird", "The answer is a mystery", "A, B", "A, B, C", "B、C", "A. red\nB. blue\nC. dark green",
     "A and B are wrong", "A, B are wrong; C", "Option A is wrong; B is right",
     "The answer is A or B.", "The answer is A or B", "Answer: A, C", "答案是A和B", "答案：A、C",
     "The answer is **A** and **C**",
     "The answer is not A", "The answer isn't A", "It is not option A", "I don't think it is A", "答案不是A", "不选A",
     "A small brown dog", "A round one", "A\nB", "A\nB\nC", "Which one?\nB or C\nA or B",
     "The correct option is not A", "The incorrect option is A or B", "Answer A is wrong",
     "A is wrong", "Option B is not right", "A错"],
)  # fmt: skip
def test_none_or_several(answer: str) -> None:
    assert chosen(answer, COLOURS) is None


NINE = {letter: f"option number {i}" for i, letter in enumerate("ABCDEFGHI")}


@pytest.mark.parametrize(
    "answer",
    ["I don't know", "I cannot answer this question, sorry about that", "Sorry, I can't tell.", "I’m not sure"],
)
def test_a_pronoun_is_no_option(answer: str) -> None:
    assert chosen(answer, NINE) is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("I", "I"), ("(I)", "I"), ("The answer is I.", "I"), ("答案是I", "I"), ("I. option", "I"), ("It must be I", "I"),
     ("I think it must be B", "B"), ("B, I think", "B"), ("My answer: I think B", "B"),
     ("The answer is B, I believe", "B")],
)  # fmt: skip
def test_beside_pronouns(answer: str, letter: str) -> None:
    assert chosen(answer, NINE) == letter


@pytest.mark.parametrize(
    "answer",
    ["I'm not sure, but the answer is B", "I am not sure but the answer is B", "It isn't easy: B", "不难看出答案是B",
     "Answer A is wrong, the answer is B", "The answer is B, a blue one", "The answer is B, not A", "答案是B，不是A"],
)  # fmt: skip
def test_denials_of_something_else(answer: str) -> None:
    assert chosen(answer, COLOURS) == "B"


def test_the_last_announcement_counts() -> None:
    assert chosen("B\n\nWait, the answer is C.", COLOURS) == "C"
    assert chosen("The answer is A? No: the answer is C", COLOURS) == "C"


def test_a_text_that_holds_a_letter() -> None:
    assert chosen("vitamin C", {"A": "vitamin C", "B": "vitamin D", "C": "iron"}) == "A"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("It is 1.5 m", "B"), ("0.5", None), ("about 5 m", "D"), ("2, I think", "C"), ("2,000", None)],
)
def test_numbers_are_whole(answer: str, letter: str | None) -> None:
    assert chosen(answer, {"A": "1", "B": "1.5", "C": "2", "D": "5"}) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "A is right",
        "A because it is red",
        "It is A",
        "Surely A, as it looks",
        "A\nIt is red",
        "A looks correct",
        "A seems right",
        "A would be right",
        "A fits best",
        "I pick A for this",
        "I go with A here",
        "It must be A then",
        "It is A but dark",
    ],
)
def test_a(answer: str) -> None:
    assert chosen(answer, COLOURS) == "A"


def test_an_option_in_a_long_answer() -> None:
    assert chosen("I would pick option A because the picture shows a red circle", COLOURS) == "A"


def test_without_options() -> None:
    assert chosen("The answer is H", {}) == "H"
    assert chosen("blue", {}) is None
