"""Answers follow from the scene, checked here by a second reading of the questions."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from training.synthetic.example import Language, Split
from training.synthetic.scene import COLOURS, Scene, random_scene
from training.synthetic.scene_questions import Pair, many_questions, questions, scene_example
from training.synthetic.scene_wordings import CELLS_EN, SPOKEN_WORDS_EN, plural
from training.synthetic.shapes import SHAPES

SHAPE = "|".join(SHAPES)
COLOUR = "|".join(COLOURS)


def relation(scene: Scene, shapes: list[str], axis: int, words: tuple[str, str]) -> str:
    """The first word where the first shape has the smaller coordinate."""
    first, second = (next(t for t in scene.things if t.shape == shape) for shape in shapes)
    return words[0] if first.centre[axis] < second.centre[axis] else words[1]


def answer_en(scene: Scene, question: str) -> str:
    """The answer of an English question, worked out from its words."""
    q = question.lower()
    shapes = re.findall(rf"\b({SHAPE})(?:e?s)?\b", q)
    colours = re.findall(rf"\b({COLOUR})\b", q)
    fits = [t for t in scene.things if t.shape in (shapes or SHAPES) and t.colour in (colours or COLOURS)]
    if q.startswith(("how many", "count", "what is the number")):
        return str(len(fits))
    if re.search(r"(is there|do you see|can you see|the picture show) an? ", q):
        return "yes" if fits else "no"
    if not fits:
        return f"There is no {shapes[0]}."
    if "left" in q:
        return relation(scene, shapes, 0, ("left", "right"))
    if "above" in q:
        return relation(scene, shapes, 1, ("above", "below"))
    assert len(fits) == 1, question
    if q.startswith(("where", "in which part", "find")):
        assert fits[0].cell is not None
        return CELLS_EN[fits[0].cell]
    return fits[0].colour if "colour" in q else fits[0].shape


IN_CHINESE = {
    "圆形": "circle", "正方形": "square", "三角形": "triangle", "星形": "star", "心形": "heart", "十字形": "cross",
    "红色": "red", "绿色": "green", "蓝色": "blue", "黄色": "yellow", "橙色": "orange", "紫色": "purple",
    "棕色": "brown", "黑色": "black",
}  # fmt: skip
CELLS_IN_CHINESE = ["左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"]


def answer_zh(scene: Scene, question: str) -> str:
    """The answer of a Chinese question, worked out from its words."""
    chinese = {english: word for word, english in IN_CHINESE.items()}
    named = [IN_CHINESE[word] for word in re.findall("|".join(IN_CHINESE), question)]
    shapes, colours = ([name for name in named if name in kind] for kind in (SHAPES, COLOURS))
    fits = [t for t in scene.things if t.shape in (shapes or SHAPES) and t.colour in (colours or COLOURS)]
    if re.search("几个|多少个|数一数", question):
        return str(len(fits))
    if re.search("吗？|有没有", question):
        return "有" if fits else "没有"
    if not fits:
        return f"图片里没有{chinese[shapes[0]]}。"
    if "左边" in question:
        return relation(scene, shapes, 0, ("左边", "右边"))
    if "上面" in question:
        return relation(scene, shapes, 1, ("上面", "下面"))
    assert len(fits) == 1, question
    if re.search("哪里|位置|找到", question):
        assert fits[0].cell is not None
        return CELLS_IN_CHINESE[fits[0].cell]
    return chinese[fits[0].colour if "颜色" in question else fits[0].shape]


def written_questions(rng: random.Random, scene: Scene, language: Language) -> list[Pair]:
    return questions(rng, scene, language, spoken=False)


ASKED = (questions, written_questions, many_questions)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("seed", range(100))
def test_answers_are_right_and_unambiguous(seed: int, ask: Callable[..., list[Pair]]) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    pairs = ask(rng, scene, "en")
    assert len(pairs) >= 5
    for question, answer in pairs:
        assert answer_en(scene, question) == answer, question


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("seed", range(60))
def test_chinese_answers_are_right_and_unambiguous(seed: int, ask: Callable[..., list[Pair]]) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    for question, answer in ask(rng, scene, "zh"):
        assert answer_zh(scene, question) == answer, question


@pytest.mark.parametrize("ask", ASKED)
def test_yes_and_no_balance_and_false_premises_are_few(ask: Callable[..., list[Pair]]) -> None:
    rng, answers = random.Random(0), Counter[str]()
    for _ in range(1500):
        answers.update(answer for _, answer in ask(rng, random_scene(rng), "en"))
    if ask is not many_questions:
        assert answers["yes"] == answers["no"]
    assert 0.9 < answers["yes"] / answers["no"] < 1.1
    assert 0.05 < sum(n for a, n in answers.items() if a.startswith("There is no")) / answers.total() < 0.11
    assert answers["0"] > 50


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_examples(language: Language, split: Split) -> None:
    for seed in range(30):
        example, again = (scene_example(random.Random(seed), language, split) for _ in range(2))
        turns = example.conversations
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert len(turns) // 2 == 1 if split == "test" else 3 <= len(turns) // 2 <= 8
        assert ["image" in turn["content"] for turn in turns] == [True] + [False] * (len(turns) - 1)
        assert [turn["content"].get("text") for turn in turns] == [
            turn["content"].get("text") for turn in again.conversations
        ]
        assert turns[0]["content"]["image"].tobytes() == again.conversations[0]["content"]["image"].tobytes()


def test_the_spoken_words_are_all() -> None:
    rng = random.Random(0)
    used = set()
    for _ in range(300):
        for question, _ in questions(rng, random_scene(rng), "en"):
            used |= set(re.findall("[a-z']+", question.lower()))
    assert used <= SPOKEN_WORDS_EN
    assert {plural("cross"), "an"} <= SPOKEN_WORDS_EN
