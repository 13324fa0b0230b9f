"""What the card says is what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.conftest import ROOT
from training.model_card import accuracy_table, beside, digest_of, hidden, model_card


def group(
    task: str, language: str, metric: str, score: float, goal: float | None, verdict: str | None
) -> dict[str, Any]:
    return {"task": task, "language": language, "metric": metric, "score": score, "goal": goal, "verdict": verdict}


GROUPS = [
    group("text", "en", "exact", 0.915, 0.9, "pass"),
    group("text", "zh", "exact", 0.8, 0.9, "fail"),
    group("speech", "en", "wer", 0.0312, 0.05, "pass"),
    group("speech", "zh", "cer", 0.04, 0.05, "pass"),
    group("juggling", "zh", "exact", 1.0, None, None),
]


def test_a_row_a_task() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in accuracy_table(GROUPS).splitlines()[2:]]
    assert [row[1:] for row in rows] == [
        ["91.5%", "80.0%", "≥ 90%", "yes, **no**"],
        ["3.1%", "4.0%", "≤ 5%", "yes"],
        ["", "100.0%", "", ""],
    ]
    assert rows[0][0].startswith("printed text of up to 8 characters (Chinese: up to 6)")
    assert rows[2][0] == "juggling"


def test_card(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a-name"
    checkpoint.mkdir()
    save_file(
        {"a": torch.zeros(1000, 300, dtype=torch.bfloat16), "b": torch.zeros(200_000, dtype=torch.bfloat16)},
        checkpoint / "model.safetensors",
        metadata={"format": "pt"},
    )
    alone = {"cases": 120, "tokens_per_second": 61.4}
    result = {"date": "2026-11-26T01:02:03+00:00", "cases": 3600, "errors": 2, "groups": GROUPS, "alone": alone}
    result |= {"count": 150, "seed": 2027, "distinct": 3328, "hidden": {"counts": (3, 4), "print": (0, 0)}}
    card = " ".join(model_card(checkpoint, result, "Found in a box.").split())
    assert card.startswith("# a-name ")
    for said in (
        "with 0.5 million parameters in bfloat16 (1.0 MB)",
        "Measured over HTTP on 2026-11-26",
        f"`python -m training.evaluate {checkpoint} --count 150 --seed 2027`",
        "asked 3,600 questions, 3,328 different ones",
        f"SHA-256 begins with {digest_of(checkpoint / 'model.safetensors')}.",
        "by `training.finetune`'s means. Found in a box.",
        "Within these tasks: counts 75% of 4. Of them",
        "2 failed requests",
        "Of them 120 short texts were also asked one at a time: the answers came at 61 tokens/s",
    ):
        assert said in card


def test_the_default_checkpoints_card_is_of_its_weights() -> None:
    checkpoint = ROOT / "checkpoints/megrez-omni-mini"
    card = " ".join((checkpoint / "README.md").read_text().split())
    assert f"SHA-256 begins with {digest_of(checkpoint / 'model.safetensors')}" in card


def record(name: str, task: str, language: str, answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": {"text": "?"}}, {"role": "assistant", "content": {"text": answer}}]
    return {"id": name, "task": task, "language": language, "conversations": turns}


def test_what_the_table_hides() -> None:
    records = [
        record("1", "shapes", "en", "2"),
        record("2", "spoken", "zh", "3"),
        record("3", "shapes", "en", "1"),
        record("4", "shapes", "zh", "红色"),
        record("5", "sum", "en", "21"),
        record("6", "text", "en", "WINDOWS"),
        record("7", "text", "en", "KITCHENS"),
        record("8", "text", "en", "CITY"),
        record("9", "text", "zh", "1234567"),
    ]
    found = hidden(records, {"2", "3", "6", "7", "8"})
    assert found == {"counts of two or more": (1, 2), "English print of 7 and 8 characters": (0, 2)}


def test_two_checkpoints_beside_each_other() -> None:
    others = [group | {"score": group["score"] - 0.01} for group in GROUPS]
    lines = beside(("made", GROUPS), ("kept", others)).splitlines()
    assert lines[0] == "| task | language | made | kept | difference |"
    assert lines[2] == "| text | en | 91.5 | 90.5 | +1.0 |"
    assert lines[4] == "| speech | en | 96.9 | 97.9 | -1.0 |"
    assert lines[-1] == "| mean | | | | +0.2 |"
