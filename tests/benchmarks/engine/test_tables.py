from __future__ import annotations

import json
import re

import pytest

from benchmarks.engine.goals import judged
from benchmarks.engine.readme import BEGIN, END, section, written
from benchmarks.engine.tables import HEADS, Row, as_json, from_json, markdown, number, rows_of, text
from benchmarks.engine.workloads import Measured


def measured() -> Measured:
    return Measured(
        seconds={"peer": [0.4, 0.2, 0.3], "megrez": [0.1, 0.1, 0.2]},
        tokens={"megrez": [[1, 2, 3, 4]], "peer": [[1, 2, 9, 4]]},
        failures={"other": "RuntimeError: no such thing\nmore of it"},
    )


def test_rows_are_medians_beside_the_roofline_and_ours() -> None:
    ours, peer, other = rows_of("a step", "decode 8", measured(), roofline=0.05, reference="peer")
    assert (ours.engine, ours.value, ours.fraction, ours.ratio) == ("megrez", 100, 0.5, None)
    assert (peer.engine, peer.value, peer.fraction, peer.ratio) == ("peer", 300, pytest.approx(1 / 6), pytest.approx(3))
    assert ours.equal_tokens == 0.5, "what follows the first other token doesn't count"
    assert peer.equal_tokens is None
    assert (other.value, other.note) == (None, "RuntimeError: no such thing\nmore of it")


def test_without_ours_nobody_has_a_ratio() -> None:
    found = measured()
    del found.seconds["megrez"]
    ours, peer, _ = rows_of("a step", "decode 8", found, roofline=0.05)
    assert (ours.value, ours.note, peer.ratio) == (None, "not measured", None)


@pytest.mark.parametrize(
    ("row", "goal", "reached"),
    [
        (Row("t", "decode 8", "megrez", 1.0, "ms", fraction=0.51), "roofline ≥ 0.50", True),
        (Row("t", "decode 8", "megrez", 1.0, "ms", fraction=0.49), "roofline ≥ 0.50", False),
        (Row("t", "decode 8", "transformers", 1.0, "ms", ratio=2.9), "≥ 3.0×", False),
        (Row("t", "decode 8", "vllm", 1.0, "ms", ratio=1.3), "≥ 1.3×", True),
        (Row("t", "decode 8", "llama.cpp Q8_0", 1.0, "ms", ratio=0.9), "≥ 1.0×", False),
        (Row("t", "prefill 2048", "megrez", 1.0, "ms", fraction=0.1), None, None),
        (Row("t", "decode 8", "vllm", None, "ms", note="absent"), None, None),
        (Row("t", "decode 8", "megrez", 1.0, "%", goal="≤ 5%", reached=True), "≤ 5%", True),
    ],
)
def test_goals(row: Row, goal: str | None, reached: bool | None) -> None:
    (after,) = judged([row])
    assert (after.goal, after.reached) == (goal, reached)


@pytest.mark.parametrize(("value", "shown"), [(0.01234, "0.0123"), (9.876, "9.88"), (99.96, "100"), (1234.5, "1,234")])
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_tables_show_what_there_is() -> None:
    rows = judged(rows_of("A decode step", "decode 8", measured(), roofline=0.05))
    rows.append(Row("Another", "once", "megrez", 3.0, "%"))
    lines = text(rows).splitlines()
    assert lines[0] == "A decode step"
    assert re.split(r"  +", lines[2]) == [h for h in HEADS if h != "equal tokens"]
    assert "reached" in lines[3]
    assert lines[5].split()[:3] == ["decode", "8", "other"]
    assert "no such thing" in lines[5]
    assert "more of it" not in text(rows)
    assert lines[-2].split() == ["workload", "engine", "median"]
    assert markdown(rows).count("\n| ---") == 2


def test_rows_survive_json() -> None:
    rows = judged(rows_of("A decode step", "decode 8", measured(), roofline=0.05))
    assert from_json(json.loads(json.dumps(as_json(rows)))) == rows


def result() -> dict[str, object]:
    return {
        "date": "2026-01-02 03:04 UTC",
        "model": "SmolLM2-135M",
        "rounds": 5,
        "machine": {"processor": "a CPU", "threads": 2, "read_gb_s": 30.0, "dtype": "float32", "gflop_s": 150.0},
        "engines": {"megrez": {"torch": "2.13.0", "weights": "float32"}, "vllm": "absent: there is no such Python"},
        "rows": as_json([Row("A decode step", "decode 8", "megrez", 3.0, "ms")]),
    }


def test_the_readme_gets_date_machine_versions_and_who_is_missing() -> None:
    shown = section(result())
    for part in ("2026-01-02 03:04 UTC, a CPU, 2 threads", "30.0 GB/s", "150.0 GFLOP/s", "torch 2.13.0", "5 rounds"):
        assert part in shown
    assert "vllm absent: there is no such Python" in shown
    assert "weights" not in shown
    assert "| decode 8 | megrez | 3 ms |" in shown


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    before = f"one\n{BEGIN}\nold\n{END}\ntwo\n"
    assert written(before, "new") == f"one\n{BEGIN}\nnew\n{END}\ntwo\n"
    with pytest.raises(ValueError, match="unpack"):
        written("no marks", "new")
