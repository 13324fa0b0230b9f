"""The golden checkpoint: weights drawn from their names, and reference values computed elsewhere
with the authors' published modules (float32)."""

from __future__ import annotations

import json
import shutil
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"
META = json.loads((GOLDEN / "meta.json").read_text())


def draw(name: str, shape: list[int]) -> np.ndarray:
    seed = zlib.crc32((META["salt"] + name).encode())
    x = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    fan_in = float(np.sqrt(np.prod(shape[1:])))
    if name.endswith("weight") and any(part in name for part in ("norm", "ln")):
        return 1 + 0.1 * x
    if name.endswith("bias"):
        return 0.05 * x
    if name.startswith("llm.model.embed"):
        return 0.3 * x
    if any(part in name for part in ("embed", "position", "token")) or name.endswith("query"):
        return 0.5 * x
    if name.startswith("llm.model.layers"):
        return x * (2.5 if "q_proj" in name or "k_proj" in name else 1.5) / fan_in
    return x * 1.2 / fan_in


def tensors() -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(np.ascontiguousarray(draw(name, shape), dtype=np.float32))
        for name, shape in META["weights"].items()
    }


def write_golden(path: Path, tokenizer_from: Path | None = None) -> Path:
    """Writes the golden checkpoint in the released layout; its tokenizer is another checkpoint's."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "config.json", path / "config.json")
    save_file(tensors(), path / "model.safetensors")
    if tokenizer_from:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (tokenizer_from / name).exists():
                shutil.copy(tokenizer_from / name, path / name)
    return path


@cache
def reference() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "golden.npz") as file:
        return {name: file[name] for name in file.files}


def relative_error(a: torch.Tensor | np.ndarray, b: np.ndarray) -> float:
    a = np.asarray(a, dtype=np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
