import random
import re

import pytest

from training.synthetic.arithmetic import held_out, sum_example
from training.synthetic.copying import copy_example
from training.synthetic.facts import FACTS, fact_example, fact_turn
from training.synthetic.memory import NAMES, TOLD, is_number, made_up_name, memory_example
from training.synthetic.outside import REFUSAL, TEMPLATES, refusal_example, refusal_question
from training.synthetic.outside_slots import SLOTS
from training.synthetic.smalltalk import TALK, greeting_example

GENERATORS = [sum_example, copy_example, fact_example, greeting_example, memory_example, refusal_example]


def texts(example):
    return [turn["content"].get("text", "") for turn in example.conversations]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_are_reproducible_conversations(generator, language, split):
    for seed in range(50):
        example = generator(random.Random(seed), language, split)
        assert texts(example) == texts(generator(random.Random(seed), language, split))
        assert [turn["role"] for turn in example.conversations] == ["user", "assistant"] * (
            len(example.conversations) // 2
        )
        assert all(text and "{" not in text for text in texts(example))
        assert example.language == language


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_sums_are_right_and_their_splits_never_meet(language, split):
    for seed in range(200):
        turns = texts(sum_example(random.Random(seed), language, split))
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            a, b = map(int, re.findall(r"\d+", question))
            assert a + b == int(answer)
            assert held_out(a, b) == held_out(b, a) == (split == "test")
            assert split == "train" or min(a, b) >= 10


def test_copies_are_exact():
    for seed in range(200):
        for language in ("en", "zh"):
            question, answer = texts(copy_example(random.Random(seed), language, "train"))[:2]
            assert answer in question


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_question_has_one_answer(language):
    for answered in (FACTS[language], TALK[language]):
        questions = [question for asked, _ in answered for question in asked]
        assert len(set(questions)) == len(questions)
    assert len(FACTS[language]) >= 60
    assert all(2 <= len(questions) <= 3 for questions, _ in FACTS[language])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_remembered_was_said_before(language):
    assert not set(NAMES[language]["train"]) & set(NAMES[language]["test"])
    for split in ("train", "test"):
        for seed in range(200):
            example = memory_example(random.Random(seed), language, split)
            *earlier, _question, answer = texts(example)
            if "image" in example.conversations[0]["content"]:
                assert len(example.conversations) in (6, 8)
                assert not any("image" in turn["content"] for turn in example.conversations[1:])
            else:
                assert any(answer in text for text in earlier[::2])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_names_are_made_up_but_for_those_of_the_test(language):
    rng = random.Random(0)
    names = {made_up_name(rng, language) for _ in range(40_000)}  # "Amy" would be among them
    assert len(names) > 10_000
    assert not names & set(NAMES[language]["test"])


@pytest.mark.parametrize(("language", "fewest"), [("en", 160), ("zh", 130)])
def test_refused_questions_are_many_and_their_splits_never_meet(language, fewest):
    train, test = TEMPLATES[language]["train"], TEMPLATES[language]["test"]
    assert len(set(train)) >= fewest
    assert len(set(test)) >= 40
    assert not set(train) & set(test)
    rng = random.Random(0)
    asked = {refusal_question(rng, language, "train") for _ in range(4000)}
    assert len(asked) > 2000
    assert not asked & {refusal_question(rng, language, "test") for _ in range(2000)}
    assert texts(refusal_example(rng, language, "test"))[-1] == REFUSAL[language]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_that_is_known_is_refused(language):
    known = {question for questions, _ in FACTS[language] for question in questions}
    known |= {said for asked, _ in TALK[language] for said in asked}
    for split in ("train", "test"):
        for template in TEMPLATES[language][split]:
            pattern = "".join(
                f"({'|'.join(map(re.escape, SLOTS[language][part]))})" if place % 2 else re.escape(part)
                for place, part in enumerate(re.split(r"\{(\w+)\}", template))
            )
            assert not [question for question in known if re.fullmatch(pattern, question)], template


@pytest.mark.parametrize("language", ["en", "zh"])
def test_where_a_number_is_to_be_remembered_no_other_is_answered(language):
    asked = {question for wordings in TOLD[language]["number"][2:] for question in wordings}
    found = 0
    for seed in range(400):
        *before, question, answer = memory_example(random.Random(seed), language, "test").conversations
        if question["content"]["text"] in asked:
            found += 1
            said = [turn["content"]["text"] for turn in before if turn["role"] == "assistant"]
            assert answer["content"]["text"] in "".join(turn["content"]["text"] for turn in before)
            assert not any(is_number(text) for text in said if text != answer["content"]["text"])
    assert found > 20


def test_numbers_are_known_in_digits_and_words():
    assert all(is_number(text) for text in ("14", "Seven", "七", "十二"))
    assert not any(is_number(text) for text in ("OK.", "Paris", "北京"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_capitals_do_not_tell_what_is_declined(split):
    """Behind "Tell me, " there is none, whether it is known or not."""
    for draw in (lambda rng: fact_turn(rng, "en")[0], lambda rng: refusal_question(rng, "en", split)):
        asked = [draw(random.Random(seed)) for seed in range(600)]
        begins = [text.removeprefix("Tell me, ")[0] for text in asked if text.startswith("Tell me, ")]
        assert len(begins) > 50
        assert all(begin.islower() or not begin.isalpha() for begin in begins)
