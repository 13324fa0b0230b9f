from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.datasets import Case, DataError, Turn, read_cases
from tests.golden import DATA

IMAGE, AUDIO = "sample_image.jpg", "sample_audio.mp3"


def read(folder: Path, *records: Any, metric: str = "exact") -> list[Case]:
    file = folder / "tiny.jsonl"
    file.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records))
    return list(read_cases(file, lambda task, language: metric, DATA))


def conversation(**content: Any) -> dict[str, Any]:
    return {
        "conversations": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": {"text": "a pad"}},
        ]
    }


def test_a_conversation(tmp_path: Path) -> None:
    (case,) = read(tmp_path, conversation(text="What?", image=IMAGE, audio=[AUDIO, AUDIO]))
    sound = DATA / AUDIO
    assert case.turns == (Turn("user", "What?", (DATA / IMAGE,), (sound, sound)),)
    assert case == Case("tiny:1", "tiny", "", "exact", case.turns, ("a pad",), {})


@pytest.mark.parametrize("nothing", [None, "", []])
def test_media_that_are_not_there(tmp_path: Path, nothing: Any) -> None:
    """As tables with a column for each write them, whoever speaks."""
    record = conversation(text="What?", image=nothing, audio=nothing)
    record["conversations"][1]["content"] |= {"image": nothing, "audio": nothing}
    (case,) = read(tmp_path, record)
    assert case.turns == (Turn("user", "What?"),)


def test_earlier_turns_are_sent(tmp_path: Path) -> None:
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": {"text": "1+1?"}},
        {"role": "assistant", "content": {"text": "2"}},
    ]
    record = {"conversations": before + conversation(text="And this?")["conversations"]}
    (case,) = read(tmp_path, record)
    assert case.turns == (
        Turn("system", "Be brief."),
        Turn("user", "1+1?"),
        Turn("assistant", "2"),
        Turn("user", "And this?"),
    )


def test_extra_keys(tmp_path: Path) -> None:
    extra = {"task": "scene", "language": "zh", "metric": "choice", "id": 7, "choices": ["红", "蓝"], "split": "test"}
    (case,) = read(tmp_path, {**conversation(text="?"), **extra, "references": ["B", "蓝"]})
    assert (case.id, case.task, case.language, case.metric) == ("7", "scene", "zh", "choice")
    assert case.references == ("B", "蓝")
    assert case.options == {"A": "红", "B": "蓝"}


def test_plain_questions(tmp_path: Path) -> None:
    cases = read(
        tmp_path,
        {"question": "What is it?", "answer": "a pad", "image": IMAGE},
        {"prompt": "Say 7.", "answers": [7, "seven"], "task": "echo"},
        metric="contains",
    )
    assert [case.turns for case in cases] == [
        (Turn("user", "What is it?", (DATA / IMAGE,)),),
        (Turn("user", "Say 7."),),
    ]
    assert [case.references for case in cases] == [("a pad",), ("7", "seven")]
    assert [(case.id, case.task, case.metric) for case in cases] == [
        ("tiny:1", "tiny", "contains"),
        ("tiny:2", "echo", "contains"),
    ]


def test_options_are_part_of_a_question_and_not_of_a_prompt(tmp_path: Path) -> None:
    record = {"answer": "B", "choices": {"A": "red", "B": "blue"}, "metric": "choice"}
    question, chinese, prompt = read(
        tmp_path,
        {"question": "Colour?", **record},
        {"question": "颜色？", **record, "language": "zh"},
        {"prompt": "Colour?", **record},
    )
    assert question.turns[0].text == "Colour?\nA. red\nB. blue\nAnswer with the option's letter."
    assert chinese.turns[0].text == "颜色？\nA. red\nB. blue\n请直接回答选项的字母。"
    assert prompt.turns[0].text == "Colour?"


def test_media_lie_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    file = tmp_path / "a.jsonl"
    file.write_text('\n{"question": "a\u2028b", "answer": "c", "image": "x.png"}\n\n')
    (case,) = read_cases(file, lambda task, language: "exact")
    assert case.turns[0].images == (tmp_path / "x.png",)
    assert case.id == "a:2"  # the line's number


USER = {"role": "user", "content": "hi"}
BAD = {
    "not an object": ([], "JSON object"),
    "nothing to ask": ({"answer": "x"}, "a question or a prompt"),
    "no answer": ({"question": "x"}, "answer must be a text"),
    "empty answer": ({"question": "x", "answer": " "}, "no reference, or an empty one"),
    "no answers": ({"question": "x", "answers": []}, "no reference, or an empty one"),
    "no turns": ({"conversations": []}, "last turn must be the assistant's"),
    "no reply": ({"conversations": [USER]}, "last turn must be the assistant's"),
    "nobody asked": ({"conversations": [{"role": "assistant", "content": "hi"}]}, "must be the user's"),
    "unknown role": ({"conversations": [{"role": "robot", "content": "hi"}]}, "role of system"),
    "unknown content": (conversation(video="x.mp4"), "text, image and audio"),
    "a picture of the conversation": (conversation(text="hi") | {"image": IMAGE}, "image: media are image and audio"),
    "pictures of a question": ({"question": "x", "answer": "y", "images": [IMAGE]}, "images: media are image and"),
    "a picture of a turn": (
        {"conversations": [USER | {"image": IMAGE}, {"role": "assistant", "content": "y"}]}, "alone, not image"),
    "an answer with a picture": (
        {"conversations": [USER, {"role": "assistant", "content": {"image": IMAGE}}]}, "only the user's turns"),
    "no such file": (conversation(image="none.png"), "there is no file"),
    "unknown type": (conversation(audio=IMAGE), "is none of .wav"),
    "not a path": (conversation(image={"url": "x"}), "are paths"),
    "unknown metric": ({"question": "x", "answer": "y", "metric": "bleu"}, "unknown metric 'bleu'"),
    "no such option": ({"question": "x", "answer": "Z", "metric": "choice", "choices": ["1", "2"]}, "name no option"),
    "odd options": ({"question": "x", "answer": "A", "choices": {"one": "1"}}, "choices must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_named(tmp_path: Path, name: str) -> None:
    record, complaint = BAD[name]
    with pytest.raises(DataError, match=rf"tiny\.jsonl:2: .*{complaint}"):
        read(tmp_path, {"question": "x", "answer": "y"}, record)


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "a", "answer": "b", "answer": "c"}')
    with pytest.raises(DataError, match=r"a\.jsonl:1: a key stands twice"):
        list(read_cases(tmp_path / "a.jsonl", lambda task, language: "exact"))


def test_not_json(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match=r"a\.jsonl"):
        list(read_cases(file, lambda task, language: "exact"))
    file.write_text("{")
    with pytest.raises(DataError, match=r"a\.jsonl:1"):
        list(read_cases(file, lambda task, language: "exact"))
