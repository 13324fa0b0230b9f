"""Two pictures in one turn, and the "compare" examples made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from .example import Example, Language, Split, turns
from .lettering import print_text, random_number
from .scene import COLOURS, Scene, draw, random_scene
from .scene_questions import COLOUR_NAMES, SHAPE_NAMES, SHAPES_ZH, a_or_an
from .shapes import SHAPES

Pair = tuple[str, str]

Pictures = tuple[Any, ...]

WORDINGS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "more": ("Which picture has more shapes, the first or the second?", "Which picture shows more shapes?"),
        "fewer": ("Which picture has fewer shapes, the first or the second?", "Which picture shows fewer shapes?"),
        "shows": ("Which picture shows {name}?", "In which picture is there {name}?", "Which picture has {name}?"),
        "greater": ("Which number is greater?", "Which picture has the greater number?", "Which number is larger?"),
        "smaller": ("Which number is smaller?", "Which picture has the smaller number?"),
        "count": ("How many shapes are in the {which} picture?", "How many shapes does the {which} picture have?"),
        "number": ("Which number does the {which} picture show?", "Read the number in the {which} picture."),
        "which shape": ("What shape is in the {which} picture?", "Which shape does the {which} picture show?"),
        "which colour": ("What colour is the shape in the {which} picture?", "Which colour has the {which} picture?"),
        "shape": ("Do both pictures show the same shape?", "Is the shape the same in both pictures?"),
        "colour": ("Do both pictures have the same colour?", "Is the colour the same in both pictures?"),
    },
    "zh": {
        "more": ("哪张图片的图形更多，第一张还是第二张？", "哪张图片里的图形更多？"),
        "fewer": ("哪张图片的图形更少，第一张还是第二张？", "哪张图片里的图形更少？"),
        "shows": ("哪张图片里有{name}？", "{name}在哪张图片里？"),
        "greater": ("哪个数字更大？", "哪张图片的数字更大？"),
        "smaller": ("哪个数字更小？", "哪张图片的数字更小？"),
        "count": ("第{which}张图片里有几个图形？", "第{which}张图片有多少个图形？"),
        "number": ("第{which}张图片上的数字是什么？", "请读出第{which}张图片上的数字。"),
        "which shape": ("第{which}张图片里是什么图形？", "第{which}张图片是什么形状？"),
        "which colour": ("第{which}张图片里的图形是什么颜色？", "第{which}张图片是什么颜色的？"),
        "shape": ("两张图片里的形状一样吗？", "两张图片的形状相同吗？"),
        "colour": ("两张图片里的颜色一样吗？", "两张图片的颜色相同吗？"),
    },
}

PLACES: dict[Language, tuple[str, str]] = {"en": ("the first", "the second"), "zh": ("第一张", "第二张")}
ORDINALS: dict[Language, tuple[str, str]] = {"en": ("first", "second"), "zh": ("一", "二")}
YES_NO: dict[Language, tuple[str, str]] = {"en": ("yes", "no"), "zh": ("是", "不是")}


def compare_example(
    rng: random.Random,
    language: Language,
    split: Split,
    drawn: Callable[[Scene], Any] | None = None,
    printed: Callable[..., Any] | None = None,
) -> Example:
    """Two pictures with 3 to 8 turns about them, as many as fit; in a test with one.

    `drawn` and `printed` draw instead of `draw` and `print_text`.
    """
    kind = rng.randrange(3)
    if kind == 2:
        numbers, pairs = _numbers(rng, language)
        pictures: Pictures = tuple((printed or print_text)(rng, number, language, split) for number in numbers)
    else:
        scenes, pairs = (_single_things if kind else _scenes)(rng, language, split)
        pictures = tuple((drawn or draw)(scene) for scene in scenes)
    rng.shuffle(pairs)
    count = 1 if split == "test" else rng.randint(3, 8)
    return Example("compare", language, turns(pairs[:count], image=list(pictures)))


def _scenes(rng: random.Random, language: Language, split: Split) -> tuple[list[Scene], list[Pair]]:
    """Different numbers of shapes; training asks for each number, too."""
    scenes = [random_scene(rng, count) for count in rng.sample(range(1, 7), 2)]
    most = 0 if len(scenes[0].things) > len(scenes[1].things) else 1
    kind = rng.choice(("more", "fewer"))
    pairs = [(rng.choice(WORDINGS[language][kind]), PLACES[language][most if kind == "more" else 1 - most])]
    pairs += _shown_in_one(rng, language, scenes)
    counts = [str(len(scene.things)) for scene in scenes]
    return scenes, pairs if split == "test" else pairs + _of_each(rng, language, "count", counts)


def _of_each(rng: random.Random, language: Language, kind: str, answers: Sequence[str]) -> list[Pair]:
    """What there is to know of each picture before they can be compared."""
    wordings = WORDINGS[language][kind]
    return [
        (rng.choice(wordings).format(which=which), answer)
        for which, answer in zip(ORDINALS[language], answers, strict=True)
    ]


def _single_things(rng: random.Random, language: Language, split: Split) -> tuple[list[Scene], list[Pair]]:
    """One shape each; shape and colour are each the same half of the time. Training asks for them, too."""
    first = random_scene(rng, 1)
    shape, colour = first.things[0].shape, first.things[0].colour
    same_shape, same_colour = rng.random() < 0.5, rng.random() < 0.5
    shapes = [s for s in SHAPES if (s == shape) == same_shape]
    colours = [c for c in COLOURS if (c == colour) == same_colour]
    second = random_scene(rng, 1, shapes, colours)
    pairs = [
        (rng.choice(WORDINGS[language][kind]), YES_NO[language][0 if same else 1])
        for kind, same in (("shape", same_shape), ("colour", same_colour))
    ]
    if split == "train":
        things = [first.things[0], second.things[0]]
        pairs += _of_each(rng, language, "which shape", [SHAPE_NAMES[language][thing.shape] for thing in things])
        pairs += _of_each(rng, language, "which colour", [COLOUR_NAMES[language][thing.colour] for thing in things])
    return [first, second], pairs


def _numbers(rng: random.Random, language: Language) -> tuple[tuple[str, str], list[Pair]]:
    """Different printed numbers, half of the time with equally many digits."""
    digits = rng.randint(1, 3)
    first = random_number(rng, digits)
    second = first
    while second == first:
        second = random_number(rng, digits if rng.random() < 0.5 else rng.randint(1, 3))
    greater = 0 if int(first) > int(second) else 1
    kind, which = rng.choice(("greater", "smaller")), rng.randrange(2)
    wordings = WORDINGS[language]
    pairs = [
        (rng.choice(wordings[kind]), PLACES[language][greater if kind == "greater" else 1 - greater]),
        (rng.choice(wordings["number"]).format(which=ORDINALS[language][which]), (first, second)[which]),
    ]
    return (first, second), pairs


def _shown_in_one(rng: random.Random, language: Language, scenes: list[Scene]) -> list[Pair]:
    """Up to two questions for shapes that one picture shows and the other doesn't, one of each picture."""
    shown = [{thing.shape for thing in scene.things} for scene in scenes]
    pairs = []
    for place in (0, 1):
        if only := sorted(shown[place] - shown[1 - place]):
            shape = rng.choice(only)
            name = f"{a_or_an(shape)} {shape}" if language == "en" else SHAPES_ZH[shape]
            pairs.append((rng.choice(WORDINGS[language]["shows"]).format(name=name), PLACES[language][place]))
    return pairs
