"""lm-evaluation-harness against the server: its requests are understood, and it scores what the server says.

Needs lm-eval (the extra `eval`); the task is our own and needs no network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden import DATA

from .cluster import ROOT, Cluster

FOLDER = DATA / "lm_eval"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed (extra: eval)"),
]


def evaluate(cluster: Cluster, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Its scores, and its samples in the order of the questions."""
    model = f"model={cluster.model},base_url={cluster.url}/v1/chat/completions,num_concurrent=4,max_retries=1"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", model]
    command += ["--tasks", "megrez_tiny", "--include_path", str(FOLDER), "--apply_chat_template"]
    command += ["--log_samples", "--output_path", str(folder / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **offline}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    (result,) = (folder / "out").rglob("results_*.json")
    (samples,) = (folder / "out").rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(result.read_text())["results"]["megrez_tiny"], sorted(lines, key=lambda line: line["doc_id"])


def test_a_task_of_our_own(cluster: Cluster, tmp_path: Path) -> None:
    scores, samples = evaluate(cluster, tmp_path)
    questions = [json.loads(line) for line in (FOLDER / "tiny.jsonl").read_text().splitlines()]
    assert [sample["doc"] for sample in samples] == questions
    client = cluster.client()
    for sample in samples:
        answer = client.chat.completions.create(
            model=cluster.model,
            messages=[{"role": "user", "content": sample["doc"]["question"]}],
            temperature=0,
            max_tokens=12,
            stop=["。", "\n\n"],
        )
        assert sample["resps"] == [[answer.choices[0].message.content]]
    right = sum(sample["exact_match"] for sample in samples)
    assert scores["exact_match,none"] == right / len(questions)
