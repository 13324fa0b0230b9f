"""Questions with accepted answers, read from JSONL: conversations in the authors' format, or plain questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .choice import chosen
from .metrics import METRICS

IMAGE_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}
AUDIO_TYPES = {".wav": "wav", ".mp3": "mp3", ".flac": "flac", ".ogg": "ogg"}
ROLES = ("system", "user", "assistant")
LETTER_PLEASE = {"zh": "请直接回答选项的字母。"}  # by language; otherwise:
LETTER_PLEASE_EN = "Answer with the option's letter."

DefaultMetric = Callable[[str, str], str]
"""From task and language."""


class DataError(Exception):
    """A record can't be used; the message names file and line."""


@dataclass(frozen=True)
class Turn:
    role: str
    text: str = ""
    images: tuple[Path, ...] = ()
    audios: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Case:
    """One request and what its answer is held against.

    `options` maps the letters of a multiple-choice question to their texts; empty where unknown.
    """

    id: str
    task: str
    language: str
    metric: str
    turns: tuple[Turn, ...]
    references: tuple[str, ...]
    options: dict[str, str]


def read_cases(file: Path, default_metric: DefaultMetric, media_root: Path | None = None) -> Iterator[Case]:
    """The cases of a JSONL file; media lie beside it unless `media_root` says where. Raises DataError."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {error}") from error
    root = media_root or file.parent
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _case(json.loads(line, object_pairs_hook=_no_key_twice), file.stem, number, default_metric, root)
            except (ValueError, DataError) as error:
                raise DataError(f"{file}:{number}: {error}") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys json would drop the first."""
    if len(value := dict(pairs)) < len(pairs):
        raise DataError(f"a key stands twice in an object with {', '.join(value)}")
    return value


def _case(record: Any, stem: str, number: int, default_metric: DefaultMetric, root: Path) -> Case:
    if not isinstance(record, dict):
        raise DataError("a record is a JSON object")
    misplaced = record.keys() & ({"images", "audios"} | ({"image", "audio"} if "conversations" in record else set()))
    if misplaced:
        raise DataError(f"{', '.join(sorted(misplaced))}: media are image and audio, of a question or a turn's content")
    task, language = str(record.get("task") or stem), str(record.get("language") or "")
    options = _options(record.get("choices"))
    if "conversations" in record:
        turns, answers = _conversation(record, root)
    else:
        turns, answers = _question(record, root, options, language)
    case = Case(
        id=str(record.get("id", f"{stem}:{number}")),
        task=task,
        language=language,
        metric=str(record.get("metric") or default_metric(task, language)),
        turns=turns,
        references=_texts(record["references"], "references") if "references" in record else answers,
        options=options,
    )
    _check(case)
    return case


def _check(case: Case) -> None:
    if not case.turns or case.turns[-1].role != "user":
        raise DataError("the turn before the reference must be the user's")
    if not case.references or not all(reference.strip() for reference in case.references):
        raise DataError("there is no reference, or an empty one")
    if case.metric not in METRICS:
        raise DataError(f"unknown metric {case.metric!r}; there are {', '.join(METRICS)}")
    if case.metric == "choice" and None in (wrong := {r: chosen(r, case.options) for r in case.references}).values():
        raise DataError(f"the references name no option: {sorted(wrong)}")


def _conversation(record: dict[str, Any], root: Path) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """The turns to send, and the text of the last one: the assistant's."""
    conversations = record["conversations"]
    if not isinstance(conversations, list):
        raise DataError("conversations must be a list")
    *before, last = [_turn(turn, root) for turn in conversations] or [Turn("user")]
    if last.role != "assistant":
        raise DataError("the last turn must be the assistant's")
    return tuple(before), (last.text,)


def _turn(turn: Any, root: Path) -> Turn:
    if not isinstance(turn, dict) or turn.get("role") not in ROLES or "content" not in turn:
        raise DataError(f"a turn has content and a role of {', '.join(ROLES)}")
    if unknown := turn.keys() - {"role", "content"}:
        raise DataError(f"a turn has role and content alone, not {', '.join(sorted(unknown))}")
    content = turn["content"]
    if isinstance(content, str):
        content = {"text": content}
    if not isinstance(content, dict) or (content.keys() - {"text", "image", "audio"}):
        raise DataError("content is a text or an object with text, image and audio")
    if turn["role"] != "user" and (content.get("image") or content.get("audio")):
        raise DataError("only the user's turns have media")
    return Turn(turn["role"], str(content.get("text") or ""), *_media(content, root))


def _question(
    record: dict[str, Any], root: Path, options: dict[str, str], language: str
) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """`prompt` is sent as it stands; a `question` gets its options, and a line that asks for the letter."""
    if "prompt" in record:
        text = str(record["prompt"])
    elif "question" in record:
        listed = [f"{letter}. {option}" for letter, option in options.items()]
        please = [LETTER_PLEASE.get(language, LETTER_PLEASE_EN)] if listed else []
        text = "\n".join([str(record["question"]), *listed, *please])
    else:
        raise DataError("a record has conversations, a question or a prompt")
    answers = record.get("answers", record.get("answer"))
    return (Turn("user", text, *_media(record, root)),), _texts(answers, "answer")


def _texts(value: Any, key: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str | int | float) for v in values):
        raise DataError(f"{key} must be a text or a list of texts")
    return tuple(str(v) for v in values)


def _options(choices: Any) -> dict[str, str]:
    """A list is lettered from A; an object has the letters already."""
    if choices is None:
        return {}
    if isinstance(choices, list) and len(choices) <= 26:
        return {chr(ord("A") + i): str(choice) for i, choice in enumerate(choices)}
    if isinstance(choices, dict) and all(len(key) == 1 and "A" <= key <= "Z" for key in choices):
        return {key: str(choice) for key, choice in choices.items()}
    raise DataError("choices must be a list of at most 26 texts, or an object from letters A to Z to texts")


def _media(content: dict[str, Any], root: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    return _files(content.get("image"), root, IMAGE_TYPES), _files(content.get("audio"), root, AUDIO_TYPES)


def _files(value: Any, root: Path, types: dict[str, str]) -> tuple[Path, ...]:
    paths = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(isinstance(path, str) for path in paths):
        raise DataError("image and audio are paths, or lists of paths")
    files = tuple(root / path for path in paths)
    for file in files:
        if file.suffix.lower() not in types:
            raise DataError(f"{file} is none of {', '.join(types)}")
        if not file.is_file():
            raise DataError(f"there is no file {file}")
    return files
