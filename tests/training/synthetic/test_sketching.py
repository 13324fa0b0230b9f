"""Sketches say what the pictures and recordings of the same examples would show and say."""

from __future__ import annotations

import random

import pytest

from training.sketch import COLUMNS, ROWS, PictureSketch, SpeechSketch
from training.synthetic.example import Language
from training.synthetic.scene import Scene, random_scene
from training.synthetic.scene_wordings import COLOURS_ZH
from training.synthetic.sketching import (
    ACROSS,
    DOWN,
    FRAMES,
    frames_of_letters,
    sketch_page,
    sketch_scene,
    sketch_speech,
    sketch_text,
)
from training.synthetic.world import LANGUAGES, SKETCHED, example

PLACES = COLUMNS * ROWS


def said(words: list[tuple[str, ...]]) -> list[str]:
    """What a CTC decoder reads: repetitions and gaps left out."""
    found, last = [], ()
    for word in words:
        if word and word != last:
            found += word
        last = word
    return found


@pytest.mark.parametrize("text", ["K", "illill", "88888888", "WWWWWWWW", "国国国国国国", "a7"])
def test_a_line_is_read_from_left_to_right(text: str) -> None:
    for seed in range(200):
        (words,) = sketch_text(random.Random(seed), text, "en", "train").slices
        assert len(words) == PLACES
        assert "".join(said(words)) == text


def test_letters_have_the_frames_of_their_centres_or_the_next_that_are_free() -> None:
    assert frames_of_letters("ABC", [0.01, 0.5, 0.9]) == [0, 32, 57]
    assert frames_of_letters("ABBC", [0.1, 0.1, 0.1, 0.1]) == [6, 7, 9, 10]  # a gap lest the Bs be taken for one
    assert frames_of_letters("AAA", [1.0, 1.0, 1.0]) == [FRAMES - 5, FRAMES - 3, FRAMES - 1]


@pytest.mark.parametrize("seed", range(50))
def test_things_stand_at_their_centres(seed: int) -> None:
    """In the upper or the lower half of their column, or where next there is room."""
    scene = random_scene(random.Random(seed))
    (words,) = sketch_scene(scene).slices
    told = [(words[place], words[place + 1]) for place in range(0, PLACES, 2) if words[place]]
    assert sum(bool(word) for word in words) == 2 * len(told)
    wanted = []
    for thing in scene.things:
        x, y = thing.centre[0] / scene.size[0], thing.centre[1] / scene.size[1]
        what = thing.shape, thing.colour
        wanted.append(((*what, DOWN[int(y * len(DOWN))]), (*what, ACROSS[int(x * len(ACROSS))])))
        near = 2 * (int(x * COLUMNS) * 2 + int(y * 2))
        assert any((words[p % PLACES], words[(p + 1) % PLACES]) == wanted[-1] for p in range(near, near + 8, 2))
    assert sorted(told) == sorted(wanted)


def test_two_things_at_one_place_are_both_told() -> None:
    scene = random_scene(random.Random(0), 1)
    twice = Scene(scene.things * 2, scene.size, scene.background)
    assert sum(bool(words) for words in sketch_scene(twice).slices[0]) == 4


def test_a_page_has_a_slice_a_cell_after_an_empty_overview() -> None:
    cells = [["one", "2"], ["三", "FOUR"], ["5", "six"]]
    sketch = sketch_page(random.Random(0), cells)
    assert sketch.grid == (2, 3)
    assert ["".join(said(words)) for words in sketch.slices] == ["", "one", "2", "三", "FOUR", "5", "six"]


@pytest.mark.parametrize(("language", "text"), [("en", "Is the star left, or right?"), ("zh", "星形是红色的吗？")])
def test_speech_takes_time(language: Language, text: str) -> None:
    for seed in range(50):
        embeds = sketch_speech(random.Random(seed), text, language, "train").embeds
        units = text.lower().replace(",", "").rstrip("?").split() if language == "en" else list(text.rstrip("？"))
        assert said(embeds) == units
        assert 0.1 < 0.04 * len(embeds) / len(units) < 0.9


@pytest.mark.parametrize("task", SKETCHED)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sketched_task_has_no_pixels_and_no_sound(task: str, language: Language) -> None:
    kinds: set[type] = set()
    for index in range(20):
        made = example(f"sketched {task}", 1, index, "train", language)
        assert made == example(f"sketched {task}", 1, index, "train", language)
        assert made.conversations[-1]["content"]["text"]
        for turn in made.conversations:
            for kind in ("image", "audio"):
                media = turn["content"].get(kind, [])
                kinds |= {type(medium) for medium in (media if isinstance(media, list) else [media])}
    assert kinds <= {PictureSketch, SpeechSketch}
    assert kinds


def test_colours_are_told_in_english_whatever_the_question() -> None:
    made = example("sketched shapes", 1, 3, "train", "zh")
    words = {word for place in made.conversations[0]["content"]["image"].slices[0] for word in place}
    assert words & set(COLOURS_ZH)
