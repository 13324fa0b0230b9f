"""Answers scored and summed up: by task, language and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .client import Answer
from .datasets import Case
from .goals import Goal, Verdict
from .metrics import METRICS, Score


@dataclass(frozen=True)
class Outcome:
    """One case, its answer and what it is worth."""

    case: Case
    answer: Answer
    score: Score

    @property
    def right(self) -> bool:
        return self.answer.error is None and METRICS[self.case.metric].right(self.score)


@dataclass(frozen=True)
class Group:
    """All outcomes of one task, language and metric.

    `score` is a ratio of sums; `cut` counts answers that `max_tokens` ended; `goal` and `verdict` are
    None where the task has no goal.
    """

    task: str
    language: str
    metric: str
    n: int
    score: float
    errors: int
    cut: int
    goal: float | None
    verdict: Verdict | None


def outcome(case: Case, answer: Answer) -> Outcome:
    """A request that failed counts as wrong."""
    metric = METRICS[case.metric]
    if answer.error is not None:
        return Outcome(case, answer, metric.failed(case.references, case.options))
    return Outcome(case, answer, metric.score(answer.text, case.references, case.options))


def grouped(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], list[Outcome]]:
    """By task, language and metric, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for item in outcomes:
        groups.setdefault((item.case.task, item.case.language, item.case.metric), []).append(item)
    return groups


def summarize(outcomes: Sequence[Outcome], goals: Mapping[str, Goal]) -> list[Group]:
    groups = []
    for (task, language, metric), members in grouped(outcomes).items():
        score = sum(m.score.points for m in members) / (sum(m.score.out_of for m in members) or 1)
        goal = goals.get(task)
        group = Group(
            task=task,
            language=language,
            metric=metric,
            n=len(members),
            score=score,
            errors=sum(m.answer.error is not None for m in members),
            cut=sum(m.answer.finish_reason == "length" for m in members),
            goal=goal.value if goal else None,
            verdict=goal.verdict(language, metric, score) if goal else None,
        )
        groups.append(group)
    return groups


def table(groups: Sequence[Group]) -> str:
    """Columns of text; those of the goals only where there are any."""
    goals = any(group.goal is not None for group in groups)
    rows = [["task", "language", "n", "metric", "score", "errors", "cut", *(["goal", "verdict"] if goals else [])]]
    for g in groups:
        row = [g.task, g.language or "-", str(g.n), g.metric, f"{g.score:.4f}", str(g.errors), str(g.cut)]
        if goals:
            sign = "≤" if METRICS[g.metric].is_error_rate else "≥"
            row += ["-" if g.goal is None else f"{sign} {g.goal:g}", g.verdict or "-"]
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def wrong_cases(outcomes: Sequence[Outcome], limit: int) -> list[dict[str, Any]]:
    """At most `limit` of each group, failed requests not among them."""
    listed = []
    for (task, language, metric), members in grouped(outcomes).items():
        wrong = [m for m in members if not m.right and m.answer.error is None]
        for m in wrong[:limit]:
            group = {"task": task, "language": language, "metric": metric}
            listed.append({"id": m.case.id, **group, "expected": list(m.case.references), "got": m.answer.text})
    return listed


def failures(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """Every request that failed."""
    return [{"id": o.case.id, "task": o.case.task, "error": o.answer.error} for o in outcomes if o.answer.error]
