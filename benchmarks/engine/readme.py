"""Writes a result's tables between the marks of a README: `python -m benchmarks.engine.readme RESULT [README]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .process import PROJECT
from .tables import from_json, markdown

BEGIN, END = "<!-- engine:begin -->", "<!-- engine:end -->"


def section(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    engines = {name: facts for name, facts in result["engines"].items() if isinstance(facts, dict)}
    versions = dict(item for facts in engines.values() for item in facts.items() if item[0] not in ("weights",))
    absent = [f"{name} {facts}" for name, facts in result["engines"].items() if not isinstance(facts, dict)]
    lines = [
        f"{result['date']}, {machine['processor']}, {machine['threads']} threads: it reads {machine['read_gb_s']} GB/s "
        f"and multiplies {machine['gflop_s']} GFLOP/s in {machine['dtype']}. {result['model']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f"; {result['rounds']} rounds in turn.",
        *absent,
    ]
    return "\n".join(lines) + "\n\n" + markdown(from_json(result["rows"]))


def written(readme: str, text: str) -> str:
    """Raises ValueError where the marks are missing."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("readme", type=Path, nargs="?", default=PROJECT / "README.md")
    args = parser.parse_args()
    result = json.loads(args.result.read_text("utf-8"))
    args.readme.write_text(written(args.readme.read_text("utf-8"), section(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
