from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.answers import AnswerFile, read_answers
from benchmarks.client import Answer

ONE = Answer("1", "好\n", "stop", 0.5)
TWO = Answer("2", "", "error", 0.1, error="no")


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    assert read_answers(path) == {}
    with AnswerFile(path, resume=True) as file:
        file.add(ONE)
        file.add(TWO)
    assert read_answers(path) == {"1": ONE}  # errors are asked again


def test_appends_behind_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, resume=False) as file:
        file.add(ONE)
    path.write_bytes(path.read_bytes() + '{"digest": "3", "text": "好'.encode()[:-1])
    with AnswerFile(path, resume=True) as file:
        file.add(replace(TWO, error=None))
    assert set(read_answers(path)) == {"1", "2"}


def test_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for resume in (False, False):
        with AnswerFile(path, resume) as file:
            file.add(ONE)
    assert len(path.read_text().splitlines()) == 1
