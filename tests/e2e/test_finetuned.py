"""Fine-tuning as its README says, then serving what came out: four real records are learnt word for word."""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden import DATA

from .cluster import ROOT, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RECORDS = [json.loads(line)["conversations"] for line in (DATA / "records.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def finetuned(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, serving the checkpoint that training/configs/finetune.yaml makes."""
    output = tmp_path_factory.mktemp("finetuned")
    command = [sys.executable, "-m", "training.finetune", "--config", "training/configs/finetune.yaml"]
    command += ["--output_dir", str(output), "--report_to", "none"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    config = copy.deepcopy(cluster.config)
    config["applications"][0]["args"]["checkpoint"] = str(output)
    cluster.deploy(config)
    yield cluster
    cluster.deploy()


def part(kind: str, file: Path) -> dict[str, Any]:
    data = base64.b64encode(file.read_bytes()).decode()
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


@pytest.mark.parametrize("turns", RECORDS, ids=lambda turns: Path(turns[0]["content"]["image"]).stem)
def test_picture_and_spoken_question_bring_the_records_answer(finetuned: Cluster, turns: list[dict[str, Any]]) -> None:
    question, answer = (turn["content"] for turn in turns)
    media = [part(kind, DATA / question[kind]) for kind in ("image", "audio")]
    asked = finetuned.client().chat.completions.create(
        model=finetuned.model, messages=[{"role": "user", "content": media}], temperature=0, max_tokens=600
    )
    assert asked.choices[0].finish_reason == "stop"
    assert asked.choices[0].message.content == answer["text"]
