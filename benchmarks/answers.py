"""Answers kept as they come, one JSON object a line, so that a run can be resumed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from .client import Answer


def utf8(text: str) -> bytes:
    """Half a surrogate pair, which a server may answer with, becomes what JSON escapes it to."""
    return text.encode("utf-8", "backslashreplace")


def answers_beside(result: Path) -> Path:
    """Where the answers of a result lie, whatever dots its name has."""
    return result.with_name(result.name.removesuffix(".json") + ".answers.jsonl")


def read_answers(file: Path) -> dict[str, Answer]:
    """What has been answered, by the requests' digests.

    Errors are left out: those requests are to be sent again. So are lines that aren't answers: a run
    that was killed can leave half of one.
    """
    answers = {}
    for line in file.read_bytes().split(b"\n") if file.exists() else []:
        try:
            answer = Answer(**json.loads(line))
        except (ValueError, TypeError):
            continue
        if answer.error is None:
            answers[answer.digest] = answer
    return answers


class AnswerFile:
    """Appends; without `resume` it begins anew."""

    def __init__(self, path: Path, resume: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab" if resume else "wb")
        if self._file.tell():
            self._file.write(b"\n")  # behind what may be half a line

    def add(self, answer: Answer) -> None:
        line = json.dumps(asdict(answer), ensure_ascii=False)
        self._file.write(utf8(line) + b"\n")
        self._file.flush()

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
