"""Two pictures in one turn, and the "compare" examples made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from .example import Example, Language, Split, turns
from .lettering import print_text, random_number
from .scene import COLOURS, Scene, draw, random_scene
from .scene_wordings import COLOUR_NAMES, SHAPE_NAMES, SHAPES_ZH, a_or_an
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
        "which colour": ("What colour is the shape in the {which} picture?", "Which colour is in the {which} picture?"),
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
YES_NO: dict[Language, tuple[str, str]] = {"en": ("yes", "no"), "zh": ("一样", "不一样")}

SEEN: dict[Language, str] = {"en": "{} and {}: {}", "zh": "{}和{}，{}"}
GREATER: dict[Language, str] = {"en": "{0} and {1}, {0} {2} {1}: {3}", "zh": "{0}和{1}，{0}{2}{1}，{3}"}
"""An answer says first what each picture shows, of numbers and counts then which is greater, and last what follows:
"5 and 7, 5 < 7: the second". Asked for the last alone, the decoder chose at random whatever it was trained on, though
it could tell of either picture what it shows; without the sign it chose wrongly in a third of cases; and where the sign
stood before the second number had been said, it was the sign that was mostly wrong."""

NUMERIC = ("more", "fewer", "greater", "smaller")

TOLD: dict[Language, str] = {
    "en": "The first picture shows {}, the second {}. {}",
    "zh": "第一张图片是{}，第二张图片是{}。{}",
}


def compare_example(
    rng: random.Random,
    language: Language,
    split: Split,
    drawn: Callable[[Scene], Any] | None = None,
    printed: Callable[..., Any] | None = None,
) -> Example:
    """Two pictures with up to 6 turns about them, first those that compare, then those about one of them; in a test
    with one turn.

    `drawn` and `printed` draw instead of `draw` and `print_text`.
    """
    kind = rng.randrange(3)
    if kind == 2:
        numbers, compared, each = _numbers(rng, language)
        pictures: Pictures = tuple((printed or print_text)(rng, number, language, split) for number in numbers)
    else:
        scenes, compared, each = (_single_things if kind else _scenes)(rng, language)
        pictures = tuple((drawn or draw)(scene) for scene in scenes)
    rng.shuffle(compared)
    rng.shuffle(each)
    pairs = compared[:1] if split == "test" else [*compared, *each][: rng.randint(3, 6)]
    return Example("compare", language, turns(pairs, image=list(pictures)))


def judged_example(rng: random.Random, language: Language, split: Split) -> Example:
    """What each of two pictures shows is told in words, and what follows is asked; 3 to 6 turns of it. So the
    verdicts are learnt from many more pairs than could be shown."""
    pairs = []
    for _ in range(rng.randint(3, 6)):
        kind, seen, verdict = _judged(rng, language)
        question, answer = _compared(rng, language, kind, seen, verdict)
        pairs.append((TOLD[language].format(*seen, question), answer))
    return Example("compare", language, turns(pairs))


def _judged(rng: random.Random, language: Language) -> tuple[str, Sequence[str], str]:
    """(kind of question, what each picture shows, the verdict)."""
    if rng.random() < 0.6:
        few = rng.random() < 0.5
        counts = rng.sample(range(1, 7), 2)
        numbers = [str(count) for count in counts] if few else _two_numbers(rng)
        least = rng.random() < 0.5
        kind = ("fewer" if least else "more") if few else ("smaller" if least else "greater")
        greater = 0 if int(numbers[0]) > int(numbers[1]) else 1
        return kind, numbers, PLACES[language][1 - greater if least else greater]
    kind, names = rng.choice((("shape", SHAPE_NAMES[language]), ("colour", COLOUR_NAMES[language])))
    first, other = rng.sample(sorted(names.values()), 2)
    same = rng.random() < 0.5
    return kind, (first, first if same else other), YES_NO[language][0 if same else 1]


def _scenes(rng: random.Random, language: Language) -> tuple[list[Scene], list[Pair], list[Pair]]:
    """Different numbers of shapes."""
    scenes = [random_scene(rng, count) for count in rng.sample(range(1, 7), 2)]
    counts = [len(scene.things) for scene in scenes]
    seen = [str(count) for count in counts]
    more = counts.index(max(counts))
    places = PLACES[language]
    compared = [_compared(rng, language, "more", seen, places[more])]
    compared += [_compared(rng, language, "fewer", seen, places[1 - more])]
    return scenes, compared + _shown_in_one(rng, language, scenes), _of_each(rng, language, "count", seen)


def _single_things(rng: random.Random, language: Language) -> tuple[list[Scene], list[Pair], list[Pair]]:
    """One shape each; shape and colour are each the same half of the time."""
    first = random_scene(rng, 1)
    shape, colour = first.things[0].shape, first.things[0].colour
    same_shape, same_colour = rng.random() < 0.5, rng.random() < 0.5
    shapes = [s for s in SHAPES if (s == shape) == same_shape]
    colours = [c for c in COLOURS if (c == colour) == same_colour]
    second = random_scene(rng, 1, shapes, colours)
    things = [first.things[0], second.things[0]]
    seen_shapes = [SHAPE_NAMES[language][thing.shape] for thing in things]
    seen_colours = [COLOUR_NAMES[language][thing.colour] for thing in things]
    yes, no = YES_NO[language]
    compared = [
        _compared(rng, language, "shape", seen_shapes, yes if same_shape else no),
        _compared(rng, language, "colour", seen_colours, yes if same_colour else no),
    ]
    each = _of_each(rng, language, "which shape", seen_shapes) + _of_each(rng, language, "which colour", seen_colours)
    return [first, second], compared, each


def _numbers(rng: random.Random, language: Language) -> tuple[tuple[str, str], list[Pair], list[Pair]]:
    """Different printed numbers, half of the time with equally many digits."""
    seen, places = _two_numbers(rng), PLACES[language]
    greater = 0 if int(seen[0]) > int(seen[1]) else 1
    compared = [
        _compared(rng, language, "greater", seen, places[greater]),
        _compared(rng, language, "smaller", seen, places[1 - greater]),
    ]
    return seen, compared, _of_each(rng, language, "number", seen)


def _two_numbers(rng: random.Random) -> tuple[str, str]:
    digits = rng.randint(1, 3)
    first = random_number(rng, digits)
    second = first
    while second == first:
        second = random_number(rng, digits if rng.random() < 0.5 else rng.randint(1, 3))
    return first, second


def _compared(rng: random.Random, language: Language, kind: str, seen: Sequence[str], verdict: str) -> Pair:
    question = rng.choice(WORDINGS[language][kind])
    if kind not in NUMERIC:
        return question, SEEN[language].format(*seen, verdict)
    return question, GREATER[language].format(*seen, ">" if int(seen[0]) > int(seen[1]) else "<", verdict)


def _of_each(rng: random.Random, language: Language, kind: str, answers: Sequence[str]) -> list[Pair]:
    """What one of the pictures shows."""
    wordings = WORDINGS[language][kind]
    return [
        (rng.choice(wordings).format(which=which), answer)
        for which, answer in zip(ORDINALS[language], answers, strict=True)
    ]


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
