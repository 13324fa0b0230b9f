"""Which checkpoint something was computed or begun with, by what its files hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Everything of a checkpoint but its weights: configurations, tokenizer, chat template."""

SAMPLES, SAMPLE_BYTES = 256, 4096
"""Of each file of weights."""


def companions(checkpoint: Path) -> list[Path]:
    """Those files, but lists of which weights lie where."""
    found = {file for pattern in COMPANIONS for file in checkpoint.glob(pattern)}
    return sorted(file for file in found if not file.name.endswith(".index.json"))


def fingerprint(checkpoint: Path) -> str:
    """Of a checkpoint's configurations, tokenizer and template, and of samples of its weights, which may be
    gigabytes."""
    digest = hashlib.sha256()
    for file in companions(checkpoint):
        digest.update(f"{file.name} ".encode() + file.read_bytes())
    for file in sorted(checkpoint.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as handle:
            for number in range(SAMPLES):
                handle.seek(number * size // SAMPLES)
                digest.update(handle.read(SAMPLE_BYTES))
    return digest.hexdigest()
