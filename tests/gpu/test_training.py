"""On a GPU: fine-tuning as its README says. Run with `pytest -m gpu`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import losses

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("attention", "precision", "near"), [("torch", "float32", 1e-3), ("auto", "bfloat16", 0.01)])
def test_losses_are_near_those_of_a_cpu(attention: str, precision: str, near: float, tmp_path: Path) -> None:
    """Which computes in the same precision: in bfloat16 an update below the weights' rounding shows later."""
    found = {}
    for device, options in (("cpu", []), ("cuda", ["--attention", attention])):
        output = tmp_path / device
        command = [sys.executable, "-m", "training.finetune", "--config", "training/configs/finetune.yaml"]
        command += ["--output_dir", str(output), "--report_to", "none", "--max_steps", "3", "--save_steps", "3"]
        command += ["--precision", precision, "--use_cpu", str(device == "cpu"), *options]
        one = os.environ | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
        done = subprocess.run(command, cwd=ROOT, env=one, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found[device] = losses(output)
    assert found["cuda"] == pytest.approx(found["cpu"], rel=near)
