"""The README's examples, run as they stand: each prints what the README shows."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .cluster import ROOT, Cluster

BLOCK = re.compile(r"```(sh|python)\n((?:(?!```).)*)```\n```(json|text)\n(.*?)```", re.DOTALL)
EXAMPLES = BLOCK.findall((ROOT / "README.md").read_text())


def test_there_are_examples() -> None:
    assert [kind for kind, *_ in EXAMPLES] == ["sh", "python", "python"]


@pytest.mark.parametrize(("kind", "code", "shown"), [(kind, code, shown) for kind, code, _, shown in EXAMPLES])
def test_example(cluster: Cluster, kind: str, code: str, shown: str) -> None:
    code = code.replace("http://127.0.0.1:8000", cluster.url)
    command = ["sh", "-c", code] if kind == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    pattern = re.escape(shown.strip()).replace("…", '[^,"]+')
    assert re.fullmatch(pattern, done.stdout.strip()), done.stdout
