"""The default checkpoint before training: Megrez-Omni's architecture, small, seeded.

    python -m training.default_model DIRECTORY

Every tensor is drawn from the seed and its own name, so the file is the same each time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.config import ModelConfig
from pipeline.processing.tokenizer import Tokenizer

from .corpus import CERTAIN, SPELLED, tokenizer_lines
from .initialise import initial_weights
from .initialise_tokens import relations
from .tokenizer import make_tokenizer

VOCAB_SIZE = 2048

CONFIG: dict[str, Any] = {
    "architectures": ["MegrezO"],
    "model_type": "megrezo",
    "hidden_size": 256,
    "intermediate_size": 480,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": VOCAB_SIZE,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000000.0,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "query_num": 64,
    "drop_vision_last_layer": False,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 160,
        "intermediate_size": 400,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "num_channels": 3,
        "patch_size": 14,
        "image_size": 448,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    "audio_config": {
        "n_mels": 128,
        "n_ctx": 1500,
        "n_state": 160,
        "n_head": 5,
        "n_layer": 5,
        "output_dim": 256,
        "avg_pool": True,
        "add_audio_bos_eos_token": True,
    },
}

PREPROCESSOR = {"max_slice_nums": 9, "scale_resolution": 224, "patch_size": 14}

GENERATION = {"do_sample": False, "temperature": 0.0, "repetition_penalty": 1.0}


def write_initial(path: Path, seed: int = 0) -> None:
    """Writes the whole directory in the released layout."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(VOCAB_SIZE, tokenizer_lines(), CERTAIN, SPELLED)
    tokenizer.save_pretrained(path)
    ends = [tokenizer.convert_tokens_to_ids(text) for text in ("<|turn_end|>", "<|eos|>")]
    _write_json(path / "config.json", CONFIG)
    _write_json(path / "preprocessor_config.json", PREPROCESSOR)
    _write_json(path / "generation_config.json", GENERATION | {"eos_token_id": ends})
    tensors = initial_weights(ModelConfig.from_pretrained(path), seed, relations(Tokenizer(path)))
    halves = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(halves, path / "model.safetensors", metadata={"format": "pt"})


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_initial(args.path, args.seed)
    size = sum(file.stat().st_size for file in args.path.iterdir())
    print(f"wrote {args.path}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
