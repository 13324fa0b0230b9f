"""The harness as it is run, against a server in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import main
from tests.golden import DATA

from .conftest import Body, FakeServer

RECORDS = [
    {"question": "1+1?", "answer": "2", "task": "sum", "language": "en"},
    {"question": "2+2?", "answer": "4", "task": "sum", "language": "en"},
    {"question": "二加三？", "answer": "5", "task": "sum", "language": "zh"},
    {
        "conversations": [
            {"role": "user", "content": {"text": "My name is Ann."}},
            {"role": "assistant", "content": {"text": "Hello, Ann!"}},
            {
                "role": "user",
                "content": {"text": "Who am I?", "image": "sample_image.jpg", "audio": "sample_audio.mp3"},
            },
            {"role": "assistant", "content": {"text": "Ann"}},
        ],
        "task": "memory",
        "metric": "contains",
    },
]


def last_text(body: Body) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def knowing(body: Body) -> str:
    return {"1+1?": "2", "2+2?": "5", "二加三？": "5。", "Who am I?": "You are Ann."}[last_text(body)]


class Run:
    """The command line, with the records in a file and the result read back."""

    def __init__(self, folder: Path, url: str) -> None:
        self.data, self.output, self.url = folder / "mixed.jsonl", folder / "out" / "result.json", url
        self.write(RECORDS)

    def write(self, records: list[dict[str, Any]]) -> None:
        self.data.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records))

    def __call__(self, *options: str) -> int:
        where = ["--base-url", self.url, "--output", str(self.output), "--media-root", str(DATA)]
        return main([str(self.data), *where, *options])

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads(self.output.read_text()))

    def scores(self) -> dict[tuple[str, str], float]:
        return {(group["task"], group["language"]): group["score"] for group in self.result["groups"]}


@pytest.fixture
def run(tmp_path: Path, server: FakeServer) -> Run:
    server.reply = knowing
    return Run(tmp_path, server.url)


def test_scores(run: Run, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--max-tokens", "9", "--api-key", "secret", "--fields", '{"temperature": null, "top_k": 4}') == 0
    assert run.scores() == {("sum", "en"): 0.5, ("sum", "zh"): 1, ("memory", ""): 1}
    result = run.result
    assert (result["model"], result["cases"], result["asked"], result["errors"]) == ("fake", 4, 4, 0)
    assert [(w["id"], w["expected"], w["got"]) for w in result["wrong"]] == [("mixed:2", ["4"], "5")]
    assert result["versions"]["openai"]
    assert result["seconds"] > 0
    letters = sum(len(knowing(body)) for body in server.bodies)
    assert result["tokens_per_second"] == pytest.approx(letters / result["seconds"], rel=0.05, abs=0.1)
    assert "secret" not in run.output.read_text()
    assert server.keys == {"Bearer secret"}
    assert {body["max_tokens"] for body in server.bodies} == {9}
    assert not any("temperature" in body for body in server.bodies)
    assert {body["top_k"] for body in server.bodies} == {4}
    printed = capsys.readouterr().out
    assert "sum     en        2  exact     0.5000  0       0" in printed
    assert "fake: 4 cases, 4 asked now" in printed


def test_conversations_and_media_are_sent_whole(run: Run, server: FakeServer) -> None:
    run("--model", "other")
    (body,) = [body for body in server.bodies if last_text(body) == "Who am I?"]
    assert (body["model"], body["temperature"]) == ("other", 0)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [part["type"] for part in body["messages"][-1]["content"]] == ["image_url", "input_audio", "text"]


def test_errors_count_as_wrong_and_are_listed(run: Run, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.reply = lambda body: (400, {}) if last_text(body) == "1+1?" else knowing(body)
    assert run() == 1
    assert run.scores()["sum", "en"] == 0
    assert run.result["errors"] == 1
    (failure,) = run.result["failures"]
    assert failure["id"] == "mixed:1"
    assert failure["error"].startswith("BadRequestError")
    printed = capsys.readouterr().out
    assert "sum     en        2  exact     0.0000  1       0" in printed
    assert "error: mixed:1: BadRequestError" in printed


def test_half_a_character_is_an_answer_as_any(run: Run, server: FakeServer) -> None:
    server.reply = lambda body: "\ud83d" if last_text(body) == "1+1?" else knowing(body)
    assert run() == 0
    assert run("--resume") == 0
    assert run.result["asked"] == 0
    assert [wrong["got"] for wrong in run.result["wrong"]] == ["\ud83d", "5"]


@pytest.mark.parametrize("name", ["result.json", "run-0.7", "run-0.7.json"])
def test_answers_lie_beside_their_result(run: Run, name: str) -> None:
    run.output = run.output.with_name(name)
    run()
    beside = name.removesuffix(".json") + ".answers.jsonl"
    assert {file.name for file in run.output.parent.iterdir()} == {name, beside}


def test_a_folder_to_write_to_is_told_before_anything_is_asked(run: Run, server: FakeServer) -> None:
    run.output.mkdir(parents=True)
    assert run() == 2
    assert not server.bodies


def test_resume_asks_only_what_has_no_answer(run: Run, server: FakeServer) -> None:
    server.reply = lambda body: (400, {}) if last_text(body) == "1+1?" else knowing(body)
    assert run("--limit", "3") == 1
    assert len(server.bodies) == 3
    server.reply = knowing
    assert run("--resume") == 0
    assert sorted(last_text(body) for body in server.bodies[3:]) == ["1+1?", "Who am I?"]
    assert run.result["asked"] == 2
    assert run.scores() == {("sum", "en"): 0.5, ("sum", "zh"): 1, ("memory", ""): 1}
    assert run("--resume") == 0
    assert run("--resume", "--max-tokens", "3") == 0  # other requests
    assert len(server.bodies) == 5 + 4
    assert run() == 0
    assert len(server.bodies) == 9 + 4


def test_references_may_change_between(run: Run, server: FakeServer) -> None:
    run()
    run.write([{**RECORDS[1], "answer": "5"}])
    assert run("--resume") == 0
    assert run.result["asked"] == 0
    assert run.scores() == {("sum", "en"): 1}


def test_goals(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goals = tmp_path / "goals.json"
    goals.write_text(json.dumps({"sum": {"metric": "contains", "goal": 0.5}, "page": {"metric": "anls", "goal": 1}}))
    assert run("--goals", str(goals)) == 0
    printed = capsys.readouterr().out
    assert "sum     zh        1  contains  1.0000  0       0    ≥ 0.5  pass" in printed  # the goal's metric
    assert "goals without data: page" in printed
    assert run("--goals", str(goals), "--metric", "exact") == 1
    assert {g["verdict"] for g in run.result["groups"] if g["task"] == "sum"} == {"other metric"}
    goals.write_text(json.dumps({"sum": {"metric": "exact", "goal": 0.9}}))
    assert run("--goals", str(goals)) == 1
    assert [g["verdict"] for g in run.result["groups"]] == ["fail", "pass", None]


def test_concurrency_is_limited(run: Run, server: FakeServer) -> None:
    def slow(body: Body) -> str:
        time.sleep(0.02)
        return "x"

    server.reply = slow
    run.write([{"question": f"{i}?", "answer": "x"} for i in range(12)])
    assert run("--concurrency", "3") == 0
    assert 1 < server.most <= 3


def test_what_cannot_be_asked(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--goals", str(tmp_path / "none.json")) == 2
    assert main([str(run.data), "--base-url", "http://127.0.0.1:9/v1", "--retries", "0", "--media-root", str(DATA),
                 "--output", str(run.output)]) == 2  # fmt: skip
    run.write([{"question": "?"}])
    assert run() == 2
    run.write([])
    assert run() == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True] * 4
    assert "127.0.0.1:9" in errors[1]
    assert "mixed.jsonl:1" in errors[2]
    with pytest.raises(SystemExit):
        run("--concurrency", "0")
    for wrong in ("[]", "no JSON", '{"messages": []}', '{"model": null}'):
        with pytest.raises(SystemExit):
            run("--fields", wrong)
