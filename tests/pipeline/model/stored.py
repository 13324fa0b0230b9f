"""Checkpoints written from the golden tensors, whole or in shards, and stages loaded from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import VisionModel
from pipeline.model.weights import load_stage
from tests.golden import GOLDEN

CONFIG: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())
Weights = dict[str, torch.Tensor]


def write(path: Path, weights: Weights, config: dict[str, Any] | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    save_file(weights, path / "model.safetensors")
    return path


def write_sharded(path: Path, weights: Weights, shards: int = 5) -> dict[str, str]:
    """Shards in the order of names, as exporters write them; returns the index's map."""
    (path / "config.json").write_text(json.dumps(CONFIG))
    names = sorted(weights)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[i * len(names) // shards : (i + 1) * len(names) // shards]}
        save_file(part, path / file)
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def builders(path: Path) -> dict[str, Callable[[], torch.nn.Module]]:
    config = ModelConfig.from_pretrained(path)
    return {
        "llm": lambda: DecoderModel(config.decoder, TorchAttention()),
        "vision": lambda: VisionModel(config.vision, TorchAttention()),
        "audio": lambda: AudioModel(config.audio, TorchAttention()),
    }


def load(path: Path, stage: str, **options: Any) -> Any:
    settings = {"dtype": torch.float32, "device": torch.device("cpu")} | options
    return load_stage(builders(path)[stage], path, **settings)


STAGES = ["llm", "vision", "audio"]
