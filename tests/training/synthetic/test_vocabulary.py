"""Characters are distinct; words belong to one split."""

from __future__ import annotations

from training.synthetic.vocabulary import CHARACTERS_ZH, CODE_CHARACTERS, WORDS_EN, words


def test_characters_are_distinct() -> None:
    assert len(CHARACTERS_ZH) == len(set(CHARACTERS_ZH)) == 240
    assert len(CODE_CHARACTERS) == 33
    needed = "一二三四五六七八九十百千上下左右中大小多少红绿蓝黄橙紫棕黑白色日月水火木金土山石田人口手足目耳"
    assert set(needed) <= set(CHARACTERS_ZH)


def test_a_word_belongs_to_one_split() -> None:
    train, test = words("train"), words("test")
    assert sorted(train + test) == sorted(set(WORDS_EN))
    assert 0.09 < len(test) / len(WORDS_EN) < 0.15


def test_words_are_short_and_lower_case() -> None:
    assert all(2 <= len(word) <= 8 and word.isascii() and word.islower() for word in WORDS_EN)
    assert max(map(len, words("test", 4))) <= 4
    assert words("test", 2) + words("train", 2)
