"""What was measured, as rows: printed, and written into a README."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .workloads import Measured

OURS = "megrez"


@dataclass(frozen=True)
class Row:
    """`value` is a median in `unit`, `low` and `high` quartiles, `fraction` of the roofline. `ratio` is of an engine's
    time to ours: over 1 ours is faster. `equal_tokens`: the share of its answers that is the reference's. `goal` is
    what ours must reach in this row."""

    table: str
    workload: str
    engine: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    fraction: float | None = None
    ratio: float | None = None
    equal_tokens: float | None = None
    goal: str | None = None
    reached: bool | None = None
    note: str = ""


def rows_of(
    table: str, workload: str, measured: Measured, roofline: float, ours: str = OURS, reference: str | None = None
) -> list[Row]:
    """Times of all engines in milliseconds, the first of them ours."""
    mine = statistics.median(measured.seconds[ours]) if measured.seconds.get(ours) else None
    rows = []
    for engine in dict.fromkeys([ours, *measured.seconds, *measured.failures]):
        if engine in measured.failures or engine not in measured.seconds:
            rows.append(Row(table, workload, engine, None, "ms", note=measured.failures.get(engine, "not measured")))
            continue
        row = timed(table, workload, engine, measured.seconds[engine], roofline)
        median = statistics.median(measured.seconds[engine])
        ratio = median / mine if mine and engine != ours else None
        rows.append(replace(row, ratio=ratio, equal_tokens=_equal(measured, engine, reference)))
    return rows


def timed(table: str, workload: str, engine: str, seconds: Sequence[float], roofline: float) -> Row:
    """Median and quartiles in milliseconds."""
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (median,) * 3
    return Row(table, workload, engine, median * 1e3, "ms", low * 1e3, high * 1e3, roofline / median)


def _equal(measured: Measured, engine: str, reference: str | None) -> float | None:
    """How many of its tokens are the reference's, each sequence up to its first other one."""
    if reference is None or reference not in measured.tokens or engine not in measured.tokens or engine == reference:
        return None
    same = total = 0
    for mine, other in zip(measured.tokens[engine], measured.tokens[reference], strict=True):
        length = min(len(mine), len(other))
        first = next((i for i in range(length) if mine[i] != other[i]), length)
        same, total = same + first, total + length
    return same / total if total else None


HEADS = ("workload", "engine", "median", "quartiles", "of the roofline", "their time / ours", "equal tokens", "goal")


def cells(row: Row) -> tuple[str, ...]:
    if row.value is None:
        return (row.workload, row.engine, row.note.split("\n")[0][:60], *[""] * 5)
    quartiles = "" if row.low is None or row.high is None else f"{number(row.low)} to {number(row.high)}"
    return (
        row.workload,
        row.engine,
        f"{number(row.value)} {row.unit}".strip(),
        quartiles,
        "" if row.fraction is None else f"{row.fraction:.2f}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.equal_tokens is None else f"{100 * row.equal_tokens:.0f}%",
        "" if row.goal is None else f"{row.goal}: {'reached' if row.reached else 'missed'}",
    )


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def text(rows: Sequence[Row]) -> str:
    """Every table under its name, columns aligned, those without any value left out."""
    parts = []
    for name in dict.fromkeys(row.table for row in rows):
        lines = _filled([HEADS, *(cells(row) for row in rows if row.table == name)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        parts.append("\n".join([name, "", *(line.rstrip() for line in shown)]))
    return "\n\n".join(parts)


def markdown(rows: Sequence[Row]) -> str:
    parts = []
    for name in dict.fromkeys(row.table for row in rows):
        head, *lines = _filled([HEADS, *(cells(row) for row in rows if row.table == name)])
        shown = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]
        parts.append("\n".join([f"**{name}**", "", *shown]))
    return "\n\n".join(parts)


def _filled(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    used = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    return [[line[i] for i in used] for line in lines]


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def from_json(items: Sequence[dict[str, Any]]) -> list[Row]:
    return [Row(**item) for item in items]
