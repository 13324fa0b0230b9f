"""Each place is asked what is there to be told, and not what doesn't matter."""

from __future__ import annotations

from training.model import IGNORED
from training.synthetic.dense import WHAT
from training.synthetic.sketching import ACROSS, DOWN, FRAMES
from training.vision_labels import PLACED, UNITS, line_labels, place_labels


def test_every_word_has_one_head() -> None:
    assert len(PLACED) == sum(len(words) for words in UNITS.values())


def test_a_place_is_asked_what_it_shows_and_for_the_rest_where_there_is_some() -> None:
    scene = {3: ("star", "red", DOWN[4]), 4: ("star", "red", ACROSS[0])}
    labels = place_labels([(scene, "", []), ({}, "A", [(9.2 / FRAMES, 9.8 / FRAMES)])])
    told = {name: {tuple(at): each[*at].item() for at in (each > 0).nonzero()} for name, each in labels.items()}
    star, red = UNITS["what"].index("star") + 1, UNITS["colour"].index("red") + 1
    assert {name: {(int(a), int(b)): label for (a, b), label in each.items()} for name, each in told.items()} == {
        "what": {(0, 3): star, (0, 4): star, (1, 9): UNITS["what"].index("A") + 1},
        "colour": {(0, 3): red, (0, 4): red},
        "down": {(0, 3): 5},
        "across": {(0, 4): 1},
    }
    assert not (labels["what"] == IGNORED).any()
    assert all((labels[name][0, 0], labels[name][1, 9]) == (IGNORED, IGNORED) for name in ("colour", "down", "across"))


def test_a_line_is_asked_its_letters_and_the_gaps_between_them() -> None:
    spans = [(10.0 / FRAMES, 15.0 / FRAMES), (18.0 / FRAMES, 19.9 / FRAMES), (20.1 / FRAMES, 21.9 / FRAMES)]
    told = "".join("?" if label == IGNORED else WHAT[label][0] for label in line_labels("ABC", spans))
    assert told == ("n" * 10 + "??A??n??Bn?C").ljust(FRAMES, "n")
