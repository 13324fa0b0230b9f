"""What this project's engine is to reach on a CPU, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .tables import OURS, Row

ROOFLINE = {"prefill 512": 0.85, "decode 1": 0.70, "decode 8": 0.50, "decode 32": 0.60}
"""Least fractions of the roofline, in float32."""

FASTER = {
    "transformers": {"prefill 512": 1.1, "decode 1": 1.6, "decode 8": 3.0, "decode 32": 3.0},
    "vllm": {"prefill 512": 1.1, "decode 1": 1.3, "decode 8": 1.3, "decode 32": 1.3},
    "llama.cpp F32": {"prefill 512": 1.1},
    "llama.cpp Q8_0": {"decode 1": 1.0, "decode 8": 1.0},
}
"""Least ratios of a peer's time to ours."""


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows, with a goal and a verdict where there is one."""
    return [_judge(row) for row in rows]


def _judge(row: Row) -> Row:
    if row.value is None or row.goal is not None:
        return row
    least = ROOFLINE.get(row.workload)
    if row.engine == OURS and least is not None and row.fraction is not None:
        return replace(row, goal=f"roofline ≥ {least:.2f}", reached=row.fraction >= least)
    wanted = FASTER.get(row.engine, {}).get(row.workload)
    if wanted is not None and row.ratio is not None:
        return replace(row, goal=f"≥ {wanted:.1f}×", reached=row.ratio >= wanted)
    return row
