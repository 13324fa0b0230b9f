"""What each task should reach: goals.json, {task: {"metric": name or {language: name}, "goal": number}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .metrics import METRICS

Verdict = Literal["pass", "fail", "other metric"]


class GoalsError(Exception):
    """A file of goals can't be used."""


@dataclass(frozen=True)
class Goal:
    """`metrics` maps languages to names of metrics; a single name stands under every language."""

    metrics: str | Mapping[str, str]
    value: float

    def metric(self, language: str) -> str | None:
        return self.metrics if isinstance(self.metrics, str) else self.metrics.get(language)

    def verdict(self, language: str, metric: str, score: float) -> Verdict:
        if metric != self.metric(language):
            return "other metric"
        return "pass" if METRICS[metric].reaches(score, self.value) else "fail"


def read_goals(file: Path) -> dict[str, Goal]:
    """The goals by task. Raises GoalsError."""
    try:
        goals = {task: _goal(**entry) for task, entry in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise GoalsError(f"{file}: {error}") from error
    return goals


def _goal(*, metric: str | dict[str, str], goal: float) -> Goal:
    names = [metric] if isinstance(metric, str) else list(metric.values())
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    return Goal(metric, float(goal))
