"""Reading records: every problem is named by file, line and field before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.records import SHOWN, DataError, has_text_beside_speech, read_records, speech_alone

from .tiny import assistant, user, write_picture, write_records, write_tone

GOOD = [user("Hello"), assistant("Hi")]


def conversation(*turns: Any) -> str:
    return json.dumps({"conversations": turns})


def problems(file: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_records(file)
    return caught.value.problems


def answer_to(content: Any) -> str:
    return conversation({"role": "user", "content": content}, assistant("Hi"))


BAD: dict[str, tuple[str, str]] = {
    "no JSON": ("{'conversations'", "not JSON"),
    "a list": ("[1]", 'field "conversations" must be a list of turns'),
    "no conversations": ("{}", 'field "conversations" must be a list of turns'),
    "no turns": ('{"conversations": []}', 'field "conversations" must be a list of turns'),
    "a turn of text": (conversation("Hello"), "conversations[0] must be an object with role and content"),
    "no role": (conversation({"content": "x"}, *GOOD), "conversations[0].role must be one of system, user, assistant"),
    "a role of its own": (conversation({"role": "tool", "content": "x"}, *GOOD), "conversations[0].role must be"),
    "content of numbers": (answer_to(5), "conversations[0].content must be a string or an object"),
    "an unknown field": (answer_to({"text": "x", "video": "v"}), "conversations[0].content.video is unknown"),
    "a picture of the record": (
        json.dumps({"image": "a.png", "conversations": GOOD}),
        'field "image": media stand in the content',
    ),
    "a picture of the turn": (
        conversation(user("x") | {"image": "a.png"}, assistant("y")),
        "conversations[0].image is unknown; a turn has role and content",
    ),
    "two pictures by one name": (
        answer_to({"image": "a.png"}).replace('"image"', '"image": "b.png", "image"'),
        "not JSON in UTF-8 (a key stands twice in an object with image)",
    ),
    "text of numbers": (answer_to({"text": 5}), "conversations[0].content.text must be a string, not int"),
    "nothing said": (answer_to({"text": ""}), "conversations[0].content.text, image and audio are all missing"),
    "no answer": (conversation(user("x"), assistant("")), "conversations[1].content.text is missing"),
    "a picture as answer": (
        conversation(user("x"), {"role": "assistant", "content": {"text": "y", "image": "a.png"}}),
        "conversations[1].content.image is only possible in a user's turn",
    ),
    "a picture of numbers": (answer_to({"image": 5}), "content.image must be a path or a list of paths, not int"),
    "a missing picture": (answer_to({"image": ["nowhere.png"]}), "conversations[0].content.image: "),
    "a missing recording": (answer_to({"audio": "nowhere.wav"}), "nowhere.wav is missing"),
    "data for a path": (answer_to({"image": "data:image/png;base64," + "A" * 5000}), "is missing"),
    "an answer to nothing": (conversation(assistant("Hello!"), *GOOD), "begin with the user's or the system's"),
    "a last turn of the user": (conversation(*GOOD, user("And?")), "the last turn must be the assistant's, not 'user'"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD)
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(f"{conversation(*GOOD)}\n\n{line}\n")
    found = [problem for problem in problems(file) if said in problem]
    assert len(found) == 1
    assert found[0].startswith(f"{file}:3: ")
    assert len(found[0]) < 500


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(line for line, _ in BAD.values()))
    lines = {problem.removeprefix(f"{file}:").split(":")[0] for problem in problems(file)}
    assert lines == {str(number) for number in range(1, len(BAD) + 1)}


def test_several_problems_of_a_line_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(conversation({"role": "user", "content": {"text": 1, "image": "a.png", "audio": "b.wav"}}))
    said = problems(file)
    assert len(said) == 4
    for part in ("content.text must be", "a.png is missing", "b.wav is missing", "the last turn must be"):
        assert sum(part in problem for problem in said) == 1


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("nothing\n" * (SHOWN + 5))
    with pytest.raises(DataError) as caught:
        read_records(file)
    message = str(caught.value)
    assert message.startswith(f"{SHOWN + 5} problem(s)")
    assert message.endswith("… and 5 more")
    assert message.count("not JSON") == SHOWN


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes(json.dumps({"conversations": [user("你好"), assistant("好")]}, ensure_ascii=False).encode("gbk"))
    assert problems(file)[0].startswith(f"{file}:1: not JSON in UTF-8")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.jsonl") == [f"{tmp_path / 'none.jsonl'}: no such file"]


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    assert problems(tmp_path / "empty.jsonl") == [f"{tmp_path / 'empty.jsonl'}: holds no records"]


def test_good_records_are_read(tmp_path: Path) -> None:
    red, low = write_picture(tmp_path / "red.png", "red"), write_tone(tmp_path / "low.wav", 200)
    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}, assistant("Hi")]
    file = write_records(tmp_path / "records.jsonl", [plain, [user("x", red, [low, low]), assistant("y")]])
    file.write_text(file.read_text().replace('{"conversations"', '{"id": 7, "conversations"', 1))
    first, second = read_records(file)
    assert (first.where, second.where) == (f"{file}:1", f"{file}:2")
    assert [turn["content"]["text"] for turn in first.conversations] == ["Be short.", "Hello", "Hi"]
    content = second.conversations[0]["content"]
    assert content == {"text": "x", "image": [f"{tmp_path}/red.png"], "audio": [f"{tmp_path}/low.wav"] * 2}


def test_media_may_stand_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    red = write_picture(tmp_path / "media" / "red.png", "red")
    file = write_records(tmp_path / "records.jsonl", [[user("x", red), assistant("y")]])
    assert len(problems(file)) == 1
    (record,) = read_records(file, tmp_path / "media")
    assert record.conversations[0]["content"]["image"] == [f"{tmp_path}/media/red.png"]


def test_speech_alone_keeps_what_stands_elsewhere(tmp_path: Path) -> None:
    low = write_tone(tmp_path / "low.wav", 200)
    turns = [user("before"), assistant("a"), user("beside", audio=low), assistant("b")]
    (record,) = read_records(write_records(tmp_path / "records.jsonl", [turns]))
    alone = speech_alone(record)
    assert [turn["content"].get("text") for turn in alone.conversations] == ["before", "a", None, "b"]
    assert alone.conversations[2]["content"]["audio"] == [f"{tmp_path}/low.wav"]
    assert [has_text_beside_speech(r) for r in (record, alone)] == [True, False]
    assert alone.where == record.where
