"""Questions about a scene whose answers follow from it, and the "shapes" examples made of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations
from typing import Any

from .example import Example, Language, Split, turns
from .scene import COLOURS, Scene, draw, random_scene
from .scene_wordings import ANSWERS, CELLS_EN, CELLS_ZH, COLOUR_NAMES, SHAPE_NAMES, WORDINGS, WRITTEN, a_or_an, plural
from .shapes import SHAPES

Pair = tuple[str, str]
"""(question, answer)."""

FALSE_PREMISES = 0.08
MOST_OF_A_KIND = 2
"""Questions of one kind about one scene; else the relations of many things would outnumber the rest."""


def questions(rng: random.Random, scene: Scene, language: Language, spoken: bool = True) -> list[Pair]:
    """Questions with one right answer each, at most MOST_OF_A_KIND of a kind, in random order; unless `spoken`, in
    more wordings."""
    writer = _Writer(rng, language, spoken)
    pairs: list[Pair] = []
    for kind in (_properties(writer, scene), _counts(writer, scene), _places(writer, scene), _relations(writer, scene)):
        pairs += rng.sample(kind, min(len(kind), MOST_OF_A_KIND))
    pairs += _existences(writer, scene)
    return _shuffled(writer, scene, pairs)


def many_questions(rng: random.Random, scene: Scene, language: Language) -> list[Pair]:
    """More of what is hard, to learn from: a decoder found which of several shapes is red only after some 40,000
    questions for it, whatever else it was asked meanwhile, and then still counted the circles wrongly half of the
    time."""
    writer = _Writer(rng, language, spoken=False)
    counts = _counts(writer, scene)
    counts += [_count_shape(writer, scene, shape) for shape in SHAPES]
    counts += [_count_colour(writer, scene, colour) for colour in sorted({thing.colour for thing in scene.things})]
    existences = list(dict.fromkeys(_existences(writer, scene) + _existences(writer, scene)))  # each once
    kinds = (
        (_properties(writer, scene), 3),
        (counts, 8),
        (_relations(writer, scene), 3),
        (_places(writer, scene), 1),
        (existences, 4),
    )
    pairs = [pair for kind, most in kinds for pair in rng.sample(kind, min(len(kind), most))]
    return _shuffled(writer, scene, pairs)


def _shuffled(writer: _Writer, scene: Scene, pairs: list[Pair]) -> list[Pair]:
    """Now and then with a question for what isn't there."""
    rng = writer.rng
    absent = [shape for shape in SHAPES if all(thing.shape != shape for thing in scene.things)]
    if absent and rng.random() < FALSE_PREMISES * len(pairs) / (1 - FALSE_PREMISES):
        shape = rng.choice(absent)
        pairs.append(writer.ask(rng.choice(("colour", "place")), writer.answer("missing", shape), shape))
    rng.shuffle(pairs)
    return pairs


def every_count(rng: random.Random, scene: Scene, language: Language) -> list[Pair]:
    """How many of each colour and shape that is there, and of one of each that isn't, in random order."""
    writer = _Writer(rng, language, spoken=False)
    shapes = sorted({thing.shape for thing in scene.things})
    colours = sorted({thing.colour for thing in scene.things})
    absent = [shape for shape in SHAPES if shape not in shapes]
    shapes += rng.sample(absent, min(1, len(absent)))
    colours.append(rng.choice([colour for colour in COLOURS if colour not in colours]))
    pairs = [_count_shape(writer, scene, shape) for shape in shapes]
    pairs += [_count_colour(writer, scene, colour) for colour in colours]
    rng.shuffle(pairs)
    return pairs


def every_relation(rng: random.Random, scene: Scene, language: Language) -> list[Pair]:
    """Which of two stands left of or above the other, for all pairs of `_relations`, in random order."""
    pairs = _relations(_Writer(rng, language, spoken=False), scene)
    rng.shuffle(pairs)
    return pairs


def every_property(rng: random.Random, scene: Scene, language: Language) -> list[Pair]:
    """The colour, shape and place of each thing that one of them tells from the others, in random order."""
    writer = _Writer(rng, language, spoken=False)
    pairs = _properties(writer, scene) + _places(writer, scene)
    rng.shuffle(pairs)
    return pairs


def scene_example(
    rng: random.Random, language: Language, split: Split, drawn: Callable[[Scene], Any] | None = None
) -> Example:
    """A scene with 4 to 8 turns about it, as many as fit; in a test with one. `drawn` draws instead of `draw`."""
    # Now and then few kinds, so that there is something to count; more often where counting is learnt.
    many = 0.75 if split == "test" else 0.6
    shapes = SHAPES if rng.random() < many else rng.sample(SHAPES, rng.randint(1, 2))
    colours = tuple(COLOURS) if rng.random() < many else rng.sample(tuple(COLOURS), rng.randint(1, 2))
    scene = random_scene(rng, shapes=shapes, colours=colours)
    if split == "test":
        pairs = questions(rng, scene, language, spoken=False)[:1]
    else:
        pairs = many_questions(rng, scene, language)[: rng.randint(4, 8)]
    return Example("shapes", language, turns(pairs, image=(drawn or draw)(scene)))


class _Writer:
    """Words a question in one of its ways, with names in the language asked for."""

    def __init__(self, rng: random.Random, language: Language, spoken: bool) -> None:
        self.rng = rng
        more = {} if spoken else WRITTEN[language]
        self.wordings = {kind: wordings + more.get(kind, ()) for kind, wordings in WORDINGS[language].items()}
        self.answers = ANSWERS[language]
        self.shapes, self.colours = SHAPE_NAMES[language], COLOUR_NAMES[language]
        self.cells = CELLS_EN if language == "en" else CELLS_ZH

    def ask(self, kind: str, answer: str, shape: str = "circle", other: str = "circle", colour: str = "red") -> Pair:
        wording = self.rng.choice(self.wordings[kind])
        names = {"shape": self.shapes[shape], "other": self.shapes[other], "colour": self.colours[colour]}
        return wording.format(a=a_or_an(shape), b=a_or_an(colour), shapes=plural(shape), **names), answer

    def answer(self, word: str, shape: str = "circle") -> str:
        return self.answers[word].format(shape=self.shapes[shape])


def _properties(writer: _Writer, scene: Scene) -> list[Pair]:
    shapes, colours = [thing.shape for thing in scene.things], [thing.colour for thing in scene.things]
    pairs = []
    for thing in scene.things:
        if shapes.count(thing.shape) == 1:
            pairs.append(writer.ask("colour", writer.colours[thing.colour], thing.shape))
        if colours.count(thing.colour) == 1:
            pairs.append(writer.ask("shape", writer.shapes[thing.shape], colour=thing.colour))
    if len(scene.things) == 1:
        pairs.append(writer.ask("only colour", writer.colours[colours[0]]))
        pairs.append(writer.ask("only shape", writer.shapes[shapes[0]]))
    return pairs


def _counts(writer: _Writer, scene: Scene) -> list[Pair]:
    """The number of all, of one shape and of one colour; rarely of some that aren't there."""
    rng, things = writer.rng, scene.things
    shape = rng.choice(SHAPES) if rng.random() < 0.2 else rng.choice(things).shape
    colour = rng.choice(tuple(COLOURS)) if rng.random() < 0.2 else rng.choice(things).colour
    return [
        writer.ask("count", str(len(things))),
        _count_shape(writer, scene, shape),
        _count_colour(writer, scene, colour),
    ]


def _count_shape(writer: _Writer, scene: Scene, shape: str) -> Pair:
    return writer.ask("count shape", str(sum(thing.shape == shape for thing in scene.things)), shape)


def _count_colour(writer: _Writer, scene: Scene, colour: str) -> Pair:
    return writer.ask("count colour", str(sum(thing.colour == colour for thing in scene.things)), colour=colour)


def _places(writer: _Writer, scene: Scene) -> list[Pair]:
    shapes = [thing.shape for thing in scene.things]
    return [
        writer.ask("place", writer.cells[thing.cell], thing.shape)
        for thing in scene.things
        if thing.cell is not None and shapes.count(thing.shape) == 1
    ]


def _relations(writer: _Writer, scene: Scene) -> list[Pair]:
    """Of things that lie clearly apart: no overlap in that direction, centres a sixth of the side apart."""
    shapes = [thing.shape for thing in scene.things]
    unique = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    pairs = []
    for first, second in permutations(unique, 2):
        for axis, kind, (less, more) in ((0, "across", ("left", "right")), (1, "along", ("above", "below"))):
            apart = first.centre[axis] - second.centre[axis]
            gap = max(first.box[axis], second.box[axis]) - min(first.box[axis + 2], second.box[axis + 2])
            if gap > 0 and abs(apart) > scene.size[axis] / 6:
                answer = writer.answer(less if apart < 0 else more)
                pairs.append(writer.ask(kind, answer, first.shape, second.shape))
    return pairs


def _existences(writer: _Writer, scene: Scene) -> list[Pair]:
    """One that is there and one that isn't, of a shape or of a shape in a colour."""
    rng = writer.rng
    there = {(thing.shape, thing.colour) for thing in scene.things}
    shapes = {shape for shape, _ in there}
    absent = [shape for shape in SHAPES if shape not in shapes]
    pairs = [writer.ask("exists", writer.answer("yes"), rng.choice(sorted(shapes)))]
    if absent and rng.random() < 0.6:
        pairs.append(writer.ask("exists", writer.answer("no"), rng.choice(absent)))
    else:  # a known shape in a wrong colour, balanced by the right one
        shape, colour = rng.choice([(s, c) for s in sorted(shapes) for c in COLOURS if (s, c) not in there])
        pairs.append(writer.ask("exists both", writer.answer("no"), shape, colour=colour))
        shape, colour = rng.choice(sorted(there))
        pairs[0] = writer.ask("exists both", writer.answer("yes"), shape, colour=colour)
    return pairs
