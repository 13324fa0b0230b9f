"""Forty held-out questions with the answers that a checkpoint gives over HTTP, for a test of the default checkpoint.

    python -m training.held_out CHECKPOINT [--output tests/data/held_out]

The questions are made once; the answers are stored anew each time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.answers import answers_beside

from .evaluate import ROOT, ask, served
from .synthetic.export import export
from .synthetic.world import TASKS

SEED = 4040
ONCE = ("copy", "fact", "greeting", "refusal")
"""Tasks that one question a language stands for; of the others there are two."""


def write_cases(output: Path) -> Path:
    """`cases.jsonl` and its media."""
    file = output / "cases.jsonl"
    if not file.exists():
        lines: list[str] = []
        for count, tasks in ((2, [task for task in TASKS if task not in ONCE]), (1, list(ONCE))):
            made = export(output, split="test", count=count, seed=SEED, tasks=tasks)
            lines += made.read_text("utf-8").splitlines(keepends=True)
            made.unlink()
        file.write_text("".join(lines), encoding="utf-8")
    return file


def store_answers(checkpoint: Path, output: Path) -> dict[str, str]:
    """`answers.json`: by the case's id what is answered."""
    cases = write_cases(output)
    with tempfile.TemporaryDirectory() as folder, served(checkpoint, Path(folder)) as url:
        result = Path(folder) / "result.json"
        ask(url, cases, result, "--concurrency", "1")
        if failures := json.loads(result.read_text("utf-8"))["failures"]:
            raise SystemExit(f"nothing stored: {len(failures)} requests failed, the first with {failures[0]['error']}")
        ids = [json.loads(line)["id"] for line in cases.read_text("utf-8").splitlines()]
        kept = answers_beside(result).read_text("utf-8").splitlines()
    answers = dict(zip(ids, (json.loads(line)["text"] for line in kept), strict=True))  # one at a time: in order
    (output / "answers.json").write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "tests" / "data" / "held_out")
    args = parser.parse_args()
    print(f"stored {len(store_answers(args.checkpoint, args.output))} answers in {args.output}")


if __name__ == "__main__":
    main()
