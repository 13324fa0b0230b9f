"""Comparisons are balanced and right."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from training.synthetic import compare as module
from training.synthetic.compare import PLACES, WORDINGS, YES_NO, compare_example, judged_example
from training.synthetic.example import Language, Split
from training.synthetic.scene import Scene, draw
from training.synthetic.shapes import SHAPES

from .needs_fonts import needs_fonts

pytestmark = needs_fonts


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_are_balanced(language: Language) -> None:
    rng, answers = random.Random(0), Counter[str]()
    for _ in range(800):
        answer = compare_example(rng, language, "test").conversations[1]["content"]["text"]
        answers[re.split(": |，", answer)[-1]] += 1
    for first, second in (PLACES[language], YES_NO[language]):
        assert answers[first] > 60
        assert 0.75 < answers[first] / answers[second] < 1.33


@pytest.mark.parametrize("split", ["train", "test"])
def test_two_pictures_in_the_first_turn(split: Split) -> None:
    for seed in range(20):
        turns = compare_example(random.Random(seed), "en", split).conversations
        assert len(turns[0]["content"]["image"]) == 2
        assert not any("image" in turn["content"] for turn in turns[1:])
        assert len(turns) == 2 if split == "test" else 4 <= len(turns) <= 12


@pytest.mark.parametrize("seed", range(60))
def test_answers_are_right(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes: list[Scene] = []
    numbers: list[str] = []
    print_text = module.print_text
    monkeypatch.setattr(module, "draw", lambda scene: (scenes.append(scene), draw(scene))[1])
    monkeypatch.setattr(
        module, "print_text", lambda rng, text, *rest: (numbers.append(text), print_text(rng, text, *rest))[1]
    )
    turns = compare_example(random.Random(seed), "en", "train").conversations
    for asked, told in zip(turns[::2], turns[1::2], strict=True):
        question, answer = asked["content"]["text"], told["content"]["text"]
        assert answer == expected(question, scenes, numbers), question


def expected(question: str, scenes: list[Scene], numbers: list[str]) -> str:
    place = PLACES["en"]
    if numbers:
        seen = related(*numbers)
        if "greater" in question or "larger" in question:
            return f"{seen}: {place[int(numbers[1]) > int(numbers[0])]}"
        if "smaller" in question:
            return f"{seen}: {place[int(numbers[1]) < int(numbers[0])]}"
        return numbers["second" in question]
    first, second = (scene.things for scene in scenes)
    if "What shape" in question or "Which shape" in question:
        return (first, second)["second" in question][0].shape
    if "What colour" in question or "Which colour" in question:
        return (first, second)["second" in question][0].colour
    if "How many" in question:
        return str(len((first, second)["second" in question]))
    if "more" in question:
        return f"{related(len(first), len(second))}: {place[len(second) > len(first)]}"
    if "fewer" in question:
        return f"{related(len(first), len(second))}: {place[len(second) < len(first)]}"
    if "same" in question or "the shape" in question or "the colour" in question:
        kind = "shape" if "shape" in question else "colour"
        seen = [getattr(thing, kind) for thing in (first[0], second[0])]
        return f"{seen[0]} and {seen[1]}: {'yes' if seen[0] == seen[1] else 'no'}"
    name = next(shape for shape in SHAPES if shape in question)
    shown = [any(thing.shape == name for thing in things) for things in (first, second)]
    assert sum(shown) == 1
    return place[shown[1]]


def related(first: int | str, second: int | str) -> str:
    return f"{first} and {second}, {first} {'>' if int(first) > int(second) else '<'} {second}"


TOLD_IN = {"en": "shows (.+), the second (.+?)[.] ", "zh": "是(.+)，第二张图片是(.+?)。"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_verdicts_on_what_is_told_are_right_and_balanced(language: Language) -> None:
    rng, verdicts = random.Random(1), Counter[str]()
    for _ in range(150):
        turns = judged_example(rng, language, "train").conversations
        assert 6 <= len(turns) <= 12
        for asked, told in zip(turns[::2], turns[1::2], strict=True):
            question, answer = asked["content"]["text"], told["content"]["text"]
            *judged, verdict = re.split("[:,，] ?", answer)
            first, second = re.split(" ?(?:and|和) ?", judged[0])
            found = re.search(TOLD_IN[language], question)
            assert found
            assert found.groups() == (first, second)
            (kind,) = (kind for kind, wordings in WORDINGS[language].items() if question[found.end() :] in wordings)
            if kind in ("shape", "colour"):
                assert len(judged) == 1
                assert verdict == YES_NO[language][first != second]
            else:
                sign = ">" if int(first) > int(second) else "<"
                assert judged[1].replace(" ", "") == f"{first}{sign}{second}"
                first_is_asked_for = (int(first) > int(second)) == (kind in ("more", "greater"))
                assert verdict == PLACES[language][not first_is_asked_for]
            verdicts[verdict] += 1
    for one, other in (PLACES[language], YES_NO[language]):
        assert 0.75 < verdicts[one] / verdicts[other] < 1.33
