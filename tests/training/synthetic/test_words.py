import random
import re

import pytest

from training.synthetic import scene_questions, scene_wordings
from training.synthetic.example import Language
from training.synthetic.scene import random_scene
from training.synthetic.words import (
    CTC_UNITS,
    LITTLE_EN,
    SPEECH_WORDS_EN,
    SPEECH_WORDS_ZH,
    agreeing,
    ctc_targets,
    normalise,
    phrase,
)


def test_words_and_units_are_each_listed_once():
    for words in (SPEECH_WORDS_EN, SPEECH_WORDS_ZH, CTC_UNITS):
        assert len(set(words)) == len(words)


def test_phrases_use_most_words_and_only_units():
    rng = random.Random(0)
    english = [phrase(rng, "en") for _ in range(2000)]
    chinese = [phrase(rng, "zh") for _ in range(2000)]
    said = {word for text in english for word in text.split()}
    assert said <= {*SPEECH_WORDS_EN, *LITTLE_EN}
    assert len(said) >= 100
    assert sum(any(word in text for text in chinese) for word in SPEECH_WORDS_ZH) >= 50
    assert all(1 <= len(ctc_targets(text, "en")) <= 6 for text in english)
    assert all(normalise(text, "en") == text for text in english)
    assert all(normalise(text, "zh") == text and ctc_targets(text, "zh") for text in chinese)


@pytest.mark.parametrize(
    ("filled", "language", "said"),
    [
        ("one purple triangles", "en", "one purple triangle"),
        ("one crosses and one shapes", "en", "one cross and one shape"),
        ("twenty one and two hearts", "en", "twenty one and two hearts"),
        ("有二个圆形", "zh", "有两个圆形"),
        ("一十八", "zh", "十八"),
        ("二十一", "zh", "二十一"),
    ],
)
def test_numbers_agree(filled: str, language: Language, said: str) -> None:
    assert agreeing(filled, language) == said
    assert ctc_targets(said, language)


def test_phrases_agree() -> None:
    rng = random.Random(0)
    english, chinese = ([phrase(rng, language) for _ in range(6000)] for language in ("en", "zh"))
    assert any(re.search(r"^one (\w+ )?(circle|cross)$", text) for text in english)
    assert not any(re.search(r"^one (\w+ )?(circles|crosses)$", text) for text in english)
    assert any("两个" in text for text in chinese)
    assert not any("二个" in text for text in chinese)


def test_targets_are_counted_from_one():
    assert [CTC_UNITS[target - 1] for target in ctc_targets("Where is the star?", "en")] == [
        "where",
        "is",
        "the",
        "star",
    ]
    assert [CTC_UNITS[target - 1] for target in ctc_targets("星形在哪里？", "zh")] == list("星形在哪里")
    assert min(ctc_targets(" ".join(SPEECH_WORDS_EN), "en")) == 1


def test_an_unknown_unit_is_named():
    with pytest.raises(KeyError, match="rhinoceros"):
        ctc_targets("Where is the rhinoceros?", "en")


def test_questions_about_pictures_can_be_written_in_units():
    assert set(CTC_UNITS) >= scene_wordings.SPOKEN_WORDS_EN
    for wordings in scene_wordings.WORDINGS["zh"].values():
        for wording in wordings:
            ctc_targets(re.sub(r"{\w+}", "", wording), "zh")
    rng = random.Random(1)
    for _ in range(200):
        for language in ("en", "zh"):
            for question, _answer in scene_questions.questions(rng, random_scene(rng), language):
                assert ctc_targets(question, language)
