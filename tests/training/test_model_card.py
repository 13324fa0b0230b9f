"""What the card says is what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.model_card import accuracy_table, model_card


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
    result["seed"] = 2027
    card = " ".join(model_card(checkpoint, result).split())
    assert card.startswith("# a-name ")
    for said in (
        "with 0.5 million parameters in bfloat16 (1.0 MB)",
        "Measured over HTTP on 2026-11-26",
        "`python -m training.evaluate --seed 2027` asked 3,600 held-out questions",
        "2 failed requests",
        "Of them 120 short texts were also asked one at a time: the answers came at 61 tokens/s",
    ):
        assert said in card
