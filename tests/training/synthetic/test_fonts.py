"""Faces are found, have their glyphs and belong to one split."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.synthetic import fonts as module
from training.synthetic.example import Language
from training.synthetic.fonts import FACES, fonts, has_glyphs, load

from .needs_fonts import needs_fonts


@needs_fonts
@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_face_is_in_both_splits(language: Language) -> None:
    train, test = fonts(language, "train"), fonts(language, "test")
    assert train
    assert test
    assert not {file for file, _ in train} & {file for file, _ in fonts("en", "test") + fonts("zh", "test")}
    assert not {load(font, 16).getname() for font in train} & {load(font, 16).getname() for font in test}


@needs_fonts
def test_no_face_lacks_a_glyph() -> None:
    assert all(len(fonts(*key)) == len(faces) for key, faces in FACES.items())


@needs_fonts
def test_a_missing_glyph_is_noticed() -> None:
    latin = fonts("en", "train")[0]
    assert has_glyphs(latin, "abc")
    assert not has_glyphs(latin, "a国")
    assert not has_glyphs(latin, "a b")


@needs_fonts
def test_chinese_faces_are_simplified_ones() -> None:
    names = {load(font, 16).getname()[0] for font in fonts("zh", "train") + fonts("zh", "test")}
    assert {"Noto Sans CJK SC", "Noto Serif CJK SC", "AR PL UMing CN"} <= names


def test_a_missing_file_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="apt-get install fonts-dejavu"):
        fonts.__wrapped__("en", "train")
