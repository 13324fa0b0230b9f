"""Writes the default checkpoint: Megrez-Omni's architecture, small, seeded, untrained.

    python -m training.make_checkpoint checkpoints/megrez-omni-mini

Every tensor is drawn from the seed and its own name, so the file is the same each time.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import VisionModel

from .tokenizer import train_tokenizer

VOCAB_SIZE = 2048

CONFIG: dict[str, Any] = {
    "architectures": ["MegrezO"],
    "model_type": "megrezo",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB_SIZE,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000000.0,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "query_num": 64,
    "drop_vision_last_layer": False,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_channels": 3,
        "patch_size": 14,
        "image_size": 448,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    "audio_config": {
        "n_mels": 128,
        "n_ctx": 1500,
        "n_state": 96,
        "n_head": 4,
        "n_layer": 3,
        "output_dim": 256,
        "avg_pool": True,
        "add_audio_bos_eos_token": True,
    },
}

PREPROCESSOR = {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14}

GENERATION = {"temperature": 0.7, "top_p": 0.8, "top_k": 100, "repetition_penalty": 1.2, "do_sample": True}


def initial_weights(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    """Normal weights scaled by fan-in, ones for norms, zeros for biases: bfloat16, by name."""
    attention = TorchAttention()
    tensors: dict[str, torch.Tensor] = {}
    with torch.device("meta"):
        stages: list[nn.Module] = [
            DecoderModel(config.decoder, attention),
            VisionModel(config.vision, attention),
            AudioModel(config.audio, attention),
        ]
    for stage in stages:
        for name, parameter in stage.named_parameters():
            full = f"{stage.prefix}{name}"
            tensors[full] = _draw(full, tuple(parameter.shape), seed).to(torch.bfloat16)
    return tensors


def _draw(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    x = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode())).standard_normal(shape).astype(np.float32)
    table = "embed" in name or "token" in name or name.endswith("query")
    return torch.from_numpy(x * (0.5 if table else 1.4 / np.sqrt(np.prod(shape[1:]))))


def write_checkpoint(path: Path, seed: int = 0) -> None:
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(VOCAB_SIZE)
    tokenizer.save_pretrained(path)
    ids = {name: tokenizer.convert_tokens_to_ids(text) for name, text in (("turn", "<|turn_end|>"), ("eos", "<|eos|>"))}
    _write_json(path / "config.json", CONFIG)
    _write_json(path / "preprocessor_config.json", PREPROCESSOR)
    _write_json(path / "generation_config.json", GENERATION | {"eos_token_id": [ids["turn"], ids["eos"]]})
    config = ModelConfig.from_pretrained(path)
    save_file(initial_weights(config, seed), path / "model.safetensors", metadata={"format": "pt"})


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_checkpoint(args.path, args.seed)
    size = sum(file.stat().st_size for file in args.path.iterdir())
    print(f"wrote {args.path}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
