"""Writes generated examples as records in the authors' format, media as files beside them.

    python -m training.synthetic.export DIRECTORY [--split test] [--count 150] [--seed 2026]

Each record also names its task and language. The same seed writes the same set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from ..features import listed
from .example import Example, Split
from .speech import SAMPLE_RATE
from .world import LANGUAGES, TASKS, example


def export(root: Path, *, split: Split, count: int, seed: int, tasks: list[str] | None = None) -> Path:
    """`count` examples a task and language; the path of the JSONL file."""
    (root / "media").mkdir(parents=True, exist_ok=True)
    file = root / f"{split}.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for task in tasks or TASKS:
            for language in LANGUAGES:
                for index in range(count):
                    name = f"{task}-{language}-{index}"
                    made = example(task, f"{seed} {language}", index, split, language)
                    record = {"id": name, "task": task, "language": language, "conversations": _turns(made, root, name)}
                    lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    return file


def _turns(made: Example, root: Path, name: str) -> list[dict[str, Any]]:
    turns = []
    for number, turn in enumerate(made.conversations):
        content = dict(turn["content"])
        for kind in ("image", "audio"):
            paths = [
                _write(medium, root, f"media/{name}-{number}-{place}")
                for place, medium in enumerate(listed(content.pop(kind, None)))
            ]
            if paths:
                content[kind] = paths[0] if len(paths) == 1 else paths
        turns.append({"role": turn["role"], "content": content})
    return turns


def _write(medium: Image.Image | np.ndarray, root: Path, stem: str) -> str:
    if isinstance(medium, Image.Image):
        medium.save(root / f"{stem}.png")
        return f"{stem}.png"
    soundfile.write(root / f"{stem}.flac", medium, SAMPLE_RATE)
    return f"{stem}.flac"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--count", type=int, default=150, help="examples of a task in a language")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="default: all")
    args = parser.parse_args()
    print(export(args.directory, split=args.split, count=args.count, seed=args.seed, tasks=args.tasks))


if __name__ == "__main__":
    main()
