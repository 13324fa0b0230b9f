"""Drills are of letters and words that come again, and show nothing that is held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from training.synthetic.drills import NAMED, count_drill, print_drill, property_drill, relation_drill, text_drill
from training.synthetic.example import Example, Language
from training.synthetic.memory import NAMES
from training.synthetic.scene import Scene, Thing
from training.synthetic.scene_wordings import CELLS_EN, CELLS_ZH, COLOUR_NAMES, SHAPE_NAMES, plural
from training.synthetic.vocabulary import words
from training.synthetic.world import TASKS, World, example

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def said(task: str, language: Language, number: int = 1500) -> list[list[str]]:
    made = (example(task, 7, index, "train", language) for index in range(number))
    return [[turn["content"]["text"] for turn in one.conversations] for one in made]


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_repeated_and_names_told_first(language: Language) -> None:
    drills = said("text drill", language)
    named = [drill for drill in drills if drill[1] not in drill[0]]  # a reply to a name holds more than it
    assert abs(len(named) / len(drills) - NAMED) < 0.05
    for questions_and_answers in drills:
        name = questions_and_answers[-1]
        for question, answer in zip(questions_and_answers[::2], questions_and_answers[1::2], strict=True):
            assert answer in question or answer == name or name in question
    assert not {drill[-1] for drill in named} & set(NAMES[language]["test"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_most_printed_texts_have_a_letter_twice(language: Language) -> None:
    texts = [drill[-1] for drill in said("sketched print drill", language)]
    assert all(1 <= len(text) <= (8 if language == "en" else 6) for text in texts)
    assert sum(len(set(text)) < len(text) for text in texts) > 0.5 * len(texts)
    assert len(set(texts)) > 0.5 * len(texts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_counts_are_right_and_few_are_one(language: Language) -> None:
    answers = []
    for things, question, answer in asked(count_drill, language, 200):
        named = [thing for thing in things if names(thing.shape, thing.colour, language) & words_of(question)]
        assert answer == str(len(named)), question
        answers.append(answer)
    assert answers.count("1") < 0.5 * len(answers)
    assert sum(answer > "1" for answer in answers) > 0.25 * len(answers)


@pytest.mark.parametrize("language", LANGUAGES)
def test_relations_are_right_and_of_all_four_kinds(language: Language) -> None:
    answers = set()
    for things, question, answer in asked(relation_drill, language, 100):
        named = [
            (question.index(SHAPE_NAMES[language][thing.shape]), thing)
            for thing in things
            if SHAPE_NAMES[language][thing.shape] in question
        ]
        (_, first), (_, second) = sorted(named, key=lambda one: one[0])
        axis, less = SIDES[answer]
        assert (first.centre[axis] < second.centre[axis]) == less, question
        answers.add(answer)
    assert len(answers) == 4


SIDES = {
    **{"left": (0, True), "right": (0, False), "above": (1, True), "below": (1, False)},
    **{"左边": (0, True), "右边": (0, False), "上面": (1, True), "下面": (1, False)},
}
"""By answer: which coordinate of the first thing's centre it is about, and whether that is the smaller one."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_properties_are_those_of_a_thing_that_is_alone_in_something(language: Language) -> None:
    """What is asked names a thing by its shape or its colour, which no other has."""
    kinds: set[str] = set()
    colours, shapes = COLOUR_NAMES[language], SHAPE_NAMES[language]
    for things, question, answer in asked(property_drill, language, 100):
        by_shape = [thing for thing in things if shapes[thing.shape] in question]
        by_colour = [thing for thing in things if colours[thing.colour] in question]
        (thing,) = by_shape or by_colour or things
        if answer in colours.values():
            kinds.add("colour")
            assert answer == colours[thing.colour]
        elif answer in shapes.values():
            kinds.add("shape")
            assert answer == shapes[thing.shape]
        else:
            kinds.add("place")
            assert thing.cell is not None
            assert answer == (CELLS_EN if language == "en" else CELLS_ZH)[thing.cell]
    assert kinds == {"colour", "shape", "place"}


def asked(
    drill: Callable[..., Example], language: Language, number: int
) -> Iterator[tuple[tuple[Thing, ...], str, str]]:
    """The things of so many scenes, and each question about them with its answer."""
    for index in range(number):
        scene: list[Scene] = []
        made = drill(random.Random(f"{language} {index}"), language, "train", drawn=scene.append)
        assert 2 <= len(made.conversations) <= 16
        texts = [turn["content"]["text"] for turn in made.conversations]
        yield from ((scene[0].things, *pair) for pair in zip(texts[::2], texts[1::2], strict=True))


def names(shape: str, colour: str, language: Language) -> set[str]:
    """What a question calls a thing by."""
    shapes = {plural(shape)} if language == "en" else {SHAPE_NAMES[language][shape]}
    return shapes | {COLOUR_NAMES[language][colour]}


def words_of(question: str) -> set[str]:
    """English words, and every piece of two or three Chinese characters."""
    pieces = {question[i : i + n] for i in range(len(question)) for n in (2, 3)}
    return set(question.strip(".?").split()) | pieces


def test_no_word_of_the_test_is_shown() -> None:
    shown = {text.lower() for drill in said("sketched print drill", "en") for text in drill}
    shown |= {word.strip(",").lower() for drill in said("text drill", "en") for word in drill[-1].split()}
    assert not shown & set(words("test"))


@pytest.mark.parametrize("drill", [text_drill, print_drill])
def test_drills_depend_on_their_seed_alone(drill) -> None:
    """Drawn nothing: `printed` tells the text itself."""
    given = {} if drill is text_drill else {"printed": lambda rng, text, language, split: text}
    first, second = (drill(random.Random(3), "en", "train", **given) for _ in range(2))
    assert first == second


def test_they_are_trained_on_but_no_task_of_the_test() -> None:
    drills = dict.fromkeys(("text drill", "sketched print drill"), 1)  # "print drill" needs fonts
    drills |= {f"{how}{kind} drill": 1 for how in ("", "sketched ") for kind in ("count", "property", "relation")}
    assert not {*drills, "print drill"} & set(TASKS)
    world = World(drills, 20, 0, lambda conversations: conversations)
    assert all(world[index][-1]["role"] == "assistant" for index in range(20))
