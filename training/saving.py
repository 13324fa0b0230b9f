"""What training leaves behind: a checkpoint directory in the released layout, ready to be served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from pipeline.config import ModelConfig
from pipeline.fingerprint import companions


def save_released(
    source: Path,
    output: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    dtype: torch.dtype,
    preprocessor: Mapping[str, Any] | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Writes `tensors`, by released name, beside a copy of what else `source` holds.

    `preprocessor` overrides keys of preprocessor_config.json: how pictures were cut in training is how
    they must be cut in serving.
    """
    output.mkdir(parents=True, exist_ok=True)
    for file in [*companions(source), *source.glob("*.py")]:  # the authors' code, which other programs load it by
        shutil.copyfile(file, output / file.name)
    if preprocessor:
        file = output / "preprocessor_config.json"
        settings = json.loads(file.read_text("utf-8")) if file.exists() else {}
        inner = settings.get("image_processor")  # where there is one, its keys are those that are read
        (inner if isinstance(inner, dict) else settings).update(preprocessor)
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for old in output.glob("model*.safetensors*"):
        old.unlink()
    state = {name: _stored(tensor, dtype) for name, tensor in tensors.items()}
    save_torch_state_dict(state, output, max_shard_size=max_shard_size)
    open_as(output / "config.json")
    ModelConfig.from_pretrained(output)  # what can't be read back is no checkpoint


def open_as(file: Path) -> None:
    """Lets those read the weights beside `file` who may read it: safetensors 0.8 lets their owner alone
    (https://github.com/safetensors/safetensors/issues/782), and a server often is somebody else."""
    for weights in file.parent.glob("*.safetensors"):
        shutil.copymode(file, weights)


def write_whole(file: Path, text: str) -> None:
    """By another name first: nobody reads, and no kill leaves, a half."""
    whole = file.with_suffix(".tmp")
    whole.write_text(text, encoding="utf-8")
    whole.replace(file)


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
