from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.goals import Goal, GoalsError, read_goals

GOALS = Path(__file__).parents[2] / "benchmarks" / "goals.json"


def test_ours() -> None:
    goals = read_goals(GOALS)
    assert goals["shapes"] == Goal("exact", 0.95)
    assert goals["speech"].metric("zh") == "cer"
    assert len(goals) == 12


def test_verdicts() -> None:
    goal = Goal({"en": "wer", "zh": "cer"}, 0.05)
    assert goal.verdict("en", "wer", 0.05) == "pass"
    assert goal.verdict("zh", "cer", 0.06) == "fail"
    assert goal.verdict("zh", "wer", 0.0) == "other metric"
    assert goal.verdict("fr", "wer", 0.0) == "other metric"
    assert Goal("exact", 0.9).verdict("", "exact", 0.9) == "pass"
    assert Goal("exact", 0.9).verdict("", "exact", 0.89) == "fail"


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"a": {"metric": "exact"}}', '{"a": {"metric": "bleu", "goal": 1}}', '{"a": 1}', "{}{}"]
)
def test_bad_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "goals.json"
    file.write_text(text)
    with pytest.raises(GoalsError, match=r"goals\.json"):
        read_goals(file)
