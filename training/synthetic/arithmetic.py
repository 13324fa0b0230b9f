"""Additions of numbers up to 99."""

from __future__ import annotations

import random

from .example import Example, Language, Split, turns

QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is {a} + {b}?",
        "What is {a} plus {b}?",
        "{a}+{b}=",
        "{a} + {b} = ?",
        "{a} plus {b}",
        "{a} plus {b} equals?",
        "{a} + {b}",
        "Add {a} and {b}.",
        "How much is {a} + {b}?",
        "Please work out {a} + {b}.",
        "Calculate {a}+{b}.",
        "What is the sum of {a} and {b}?",
        "Add {b} to {a}, please.",
        "I have {a} apples and get {b} more. How many do I have?",
    ),
    "zh": (
        "{a}加{b}等于多少？",
        "{a}+{b}等于几？",
        "{a}+{b}=",
        "{a} + {b} = ?",
        "{a}加{b}是多少？",
        "{a}加{b}等于？",
        "{a}+{b}",
        "计算{a}+{b}。",
        "请算一下{a}加{b}。",
        "{a}与{b}的和是多少？",
        "把{a}和{b}加起来。",
        "{a}加上{b}得多少？",
        "我有{a}个苹果，又买了{b}个，一共有几个？",
    ),
}


def held_out(a: int, b: int) -> bool:
    """The twelfth of all pairs that only the test split asks for."""
    return a * b % 11 == 5


def sum_turn(rng: random.Random, language: Language, split: Split) -> tuple[str, str]:
    """(question, answer). Two digits each; in training a sixth of the numbers have one."""
    while True:
        a, b = (rng.randint(10, 99) if split == "test" or rng.random() < 5 / 6 else rng.randint(0, 9) for _ in range(2))
        if held_out(a, b) == (split == "test"):
            return rng.choice(QUESTIONS[language]).format(a=a, b=b), str(a + b)


def sum_example(rng: random.Random, language: Language, split: Split) -> Example:
    """6 to 12 additions in training, one in a test."""
    count = rng.randint(6, 12) if split == "train" else 1
    return Example("sum", language, turns(sum_turn(rng, language, split) for _ in range(count)))
