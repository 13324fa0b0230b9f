"""`serve run` with another checkpoint: one line of YAML."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import Omni

from .cluster import BIN, ROOT, Process, Server, free_port, wait_for
from .media import PICTURE, image, text


@pytest.fixture(autouse=True)
def _left_clean() -> None:
    """The session's cluster has no part in this."""


def test_golden_checkpoint(golden_path: Path, golden_omni: Omni, tmp_path: Path) -> None:
    port = free_port()
    yaml = (ROOT / "serve_config.yaml").read_text()
    changed = yaml.replace("checkpoint: checkpoints/megrez-omni-mini", f"checkpoint: {golden_path}")
    assert changed != yaml
    config = tmp_path / "serve_config.yaml"
    config.write_text(changed.replace("port: 8000", f"port: {port}"))
    env = {**os.environ, "RAY_ADDRESS": "local", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    process = Process([str(BIN / "serve"), "run", str(config)], env, tmp_path / "log")
    server = Server(port, "megrez-omni-mini")
    try:
        wait_for(server.ready, 90, "serve run")
        response = server.client().chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": [image(PICTURE.read_bytes()), text("hi")]}],
            max_tokens=12,
            temperature=0,
            extra_body={"repetition_penalty": 1.0},
        )
    finally:
        process.stop()
    assert response.usage.prompt_tokens_details.image_tokens == 448
    assert response.choices[0].message.content == golden_omni.chat(
        [{"role": "user", "content": {"text": "hi", "image": PICTURE}}],
        max_tokens=12,
        temperature=0,
        repetition_penalty=1.0,
    )
