"""Questions typed as people do ask the same."""

from __future__ import annotations

import random
import re

from training.synthetic.example import Example, assistant, user
from training.synthetic.informal import informal, typed
from training.synthetic.world import example


def test_each_habit_is_met() -> None:
    rng = random.Random(0)
    found = {typed(rng, "What is the colour of the star?", "en") for _ in range(500)}
    assert "What is the colour of the star?" in found
    for begin, colour, mark in (("What is", "color", "?"), ("What's", "colour", "?"), ("what is", "colour", "")):
        assert f"{begin} the {colour} of the star{mark}" in found
    assert {typed(rng, "星形在哪里？", "zh") for _ in range(100)} == {"星形在哪里？", "星形在哪里"}
    assert all(re.fullmatch("[Ww]hat('s| is) the colou?r of the star[?]?", question) for question in found)


def test_only_questions_are_retyped() -> None:
    turns = [user("Repeat: Grey colour."), assistant("Grey colour."), user(audio=1), assistant("Is it grey?")]
    for seed in range(50):
        assert informal(random.Random(seed), Example("copy", "en", turns)).conversations == turns
    asked = Example("shapes", "en", [user("What colour is it?", image=1), assistant("red")])
    made = [informal(random.Random(seed), asked).conversations for seed in range(50)]
    assert {str(turns[0]["content"]["image"]) for turns in made} == {"1"}
    assert len({turns[0]["content"]["text"] for turns in made}) > 4
    assert asked.conversations[0]["content"]["text"] == "What colour is it?"


def test_the_world_is_asked_so() -> None:
    """In all tasks with written questions, in both splits, the same for the same seed."""
    for split in ("train", "test"):
        texts = [
            turn["content"].get("text", "")
            for task in ("sum", "fact", "sketched shapes")
            for index in range(150)
            for turn in example(task, 1, index, split, "en").conversations  # type: ignore[arg-type]
            if turn["role"] == "user"
        ]
        for habit in (r"\bcolor\b", "What's ", "^what ", "[a-z]$"):
            assert any(re.search(habit, text) for text in texts), (split, habit)
    assert example("fact", 1, 5, "test", "en") == example("fact", 1, 5, "test", "en")
