"""Conversations in the authors' format: JSON lines, read and checked before anything is trained.

A line is {"conversations": [{"role": "user", "content": {"text": …, "image": path, "audio": path}},
{"role": "assistant", "content": {"text": …}}, …]}; image and audio may also be lists of paths, which are
relative to the file's directory or to a directory of your choice. Beside its conversations a record may
hold what it likes (an id, where it comes from), but no media: those belong to a turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import MegrezError

from .features import listed

ROLES = ("system", "user", "assistant")
MEDIA = ("image", "audio")
MISPLACED = ("image", "images", "audio", "audios")
"""Where other formats have the media of a whole conversation: on the record."""
SHOWN = 20
"""Problems that an error lists; it counts the others."""
PATH_SHOWN = 200


class DataError(MegrezError):
    """Training data that can't be used; the message names file, line and field of each problem."""

    def __init__(self, problems: list[str], file: Path | None = None) -> None:
        """`file`: where all of them are written, if they are."""
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        more += f", all of them in {file}" if file else ""
        super().__init__(f"{len(problems)} problem(s) in the training data:\n" + "\n".join(problems[:SHOWN]) + more)
        self.problems = problems


@dataclass(frozen=True)
class Record:
    """`where` is 'file:line', the same for all forms of one line. Media are paths that exist."""

    where: str
    conversations: list[dict[str, Any]]


def read_records(file: Path, media_root: Path | None = None) -> list[Record]:
    """Every record of a file. Raises DataError with all problems at once, missing media files included."""
    if not file.is_file():
        raise DataError([f"{file}: no such file"])
    root = media_root or file.parent
    records: list[Record] = []
    problems: list[str] = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                value = json.loads(line.decode("utf-8"), object_pairs_hook=_no_key_twice)
            except ValueError as error:
                problems.append(f"{where}: not JSON in UTF-8 ({error})")
                continue
            found = list(_problems(value, root))
            problems += [f"{where}: {problem}" for problem in found]
            if not found:
                records.append(Record(where, [_turn(turn, root) for turn in value["conversations"]]))
    if not records and not problems:
        problems.append(f"{file}: holds no records")
    if problems:
        raise DataError(problems)
    return records


def speech_alone(record: Record) -> Record:
    """The same record where speech stands for itself: texts beside a recording are left out."""
    turns = []
    for turn in record.conversations:
        content = turn["content"]
        if turn["role"] == "user" and content.get("audio"):
            content = {key: value for key, value in content.items() if key != "text"}
        turns.append({"role": turn["role"], "content": content})
    return Record(record.where, turns)


def has_text_beside_speech(record: Record) -> bool:
    return any(t["content"].get("audio") and t["content"].get("text") for t in record.conversations)


def _turn(turn: Mapping[str, Any], root: Path) -> dict[str, Any]:
    content = turn["content"]
    content = {"text": content} if isinstance(content, str) else dict(content)
    for kind in MEDIA:
        content[kind] = [str(root / path) for path in listed(content.get(kind))]
    return {"role": turn["role"], "content": content}


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys json would drop the first."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"a key stands twice in an object with {', '.join(value)}")
    return value


def _problems(value: Any, root: Path) -> Iterable[str]:
    turns = value.get("conversations") if isinstance(value, Mapping) else None
    if not isinstance(turns, list) or not turns:
        yield 'field "conversations" must be a list of turns'
        return
    for key in value:
        if key in MISPLACED:
            yield f'field "{key}": media stand in the content of the turn that shows them'
    roles: list[Any] = []
    for number, turn in enumerate(turns):
        at = f"conversations[{number}]"
        if not isinstance(turn, Mapping):
            yield f"{at} must be an object with role and content"
            return
        roles.append(turn.get("role"))
        for key in turn:
            if key not in ("role", "content"):
                yield f"{at}.{key} is unknown; a turn has role and content"
        if roles[-1] not in ROLES:
            yield f"{at}.role must be one of {', '.join(ROLES)}, not {roles[-1]!r}"
        content = turn.get("content")
        if isinstance(content, str):
            content = {"text": content}
        if not isinstance(content, Mapping):
            yield f"{at}.content must be a string or an object"
            continue
        yield from (f"{at}.content.{problem}" for problem in _content_problems(content, roles[-1], root))
    if roles[0] == "assistant":
        yield "conversations[0].role: an answer needs a turn before it; begin with the user's or the system's"
    if roles[-1] != "assistant":
        yield f"the last turn must be the assistant's, not {roles[-1]!r}"


def _content_problems(content: Mapping[str, Any], role: Any, root: Path) -> Iterable[str]:
    for key in content:
        if key not in ("text", *MEDIA):
            yield f"{key} is unknown; known are text, image, audio"
    text = content.get("text")
    if text is not None and not isinstance(text, str):
        yield f"text must be a string, not {type(text).__name__}"
    if role == "assistant" and not text:
        yield "text is missing: there is nothing to learn from this answer"
    if role == "user" and not any(content.get(key) for key in ("text", *MEDIA)):
        yield "text, image and audio are all missing"
    for kind in MEDIA:
        paths = listed(content.get(kind))
        if paths and role != "user":
            yield f"{kind} is only possible in a user's turn"
        for path in paths:
            if not isinstance(path, str):
                yield f"{kind} must be a path or a list of paths, not {type(path).__name__}"
            elif not _is_file(root / path):
                yield f"{kind}: {str(root / path)[:PATH_SHOWN]} is missing"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a name: data in place of a path
        return False
