"""A checkpoint of Megrez-3B-Omni's size with random weights: as fast, or as slow, as the released one.

    python -m benchmarks.engine.full_size DIRECTORY

writes a directory in the released layout, about 8 GB. It can be served; what it answers means nothing. Tokenizer and
template are those of the repository's checkpoint, the vocabulary filled up with words that no text has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from training.model import OmniForTraining
from training.saving import open_as, save_released

from .process import PROJECT

TOKENIZER = PROJECT / "checkpoints" / "megrez-omni-mini"
STD = 0.02  # of weights: Llama's and SigLIP's own

CONFIG: dict[str, Any] = {
    "architectures": ["MegrezO"],
    "model_type": "megrezo",
    "hidden_size": 2560,
    "intermediate_size": 7168,
    "num_hidden_layers": 32,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "vocab_size": 122880,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "query_num": 64,
    "drop_vision_last_layer": False,
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 980,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    "audio_config": {
        "n_mels": 128,
        "n_ctx": 1500,
        "n_state": 1280,
        "n_head": 20,
        "n_layer": 32,
        "output_dim": 2560,
        "avg_pool": True,
        "add_audio_bos_eos_token": True,
    },
}
PREPROCESSOR = {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14}
LLAMA = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"),
)


def write(released: Path, huggingface: Path | None = None, config: dict[str, Any] = CONFIG) -> None:
    """The checkpoint in bfloat16; and, for other engines, its language model as a Llama of transformers."""
    tensors = _random(config)
    save_released(TOKENIZER, released, tensors, dtype=torch.bfloat16, preprocessor=PREPROCESSOR)
    (released / "config.json").write_text(json.dumps(config, indent=2))
    _fill_up(released / "tokenizer.json", config["vocab_size"])
    if huggingface:
        language = {name.removeprefix("llm."): t for name, t in tensors.items() if name.startswith("llm.")}
        llama: dict[str, Any] = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
        }
        rope = {"rope_type": "default", "rope_theta": config["rope_theta"]}
        llama |= {key: config[key] for key in LLAMA} | {"rope_parameters": rope}
        huggingface.mkdir(parents=True, exist_ok=True)
        (huggingface / "config.json").write_text(json.dumps(llama, indent=2))
        save_torch_state_dict(language, huggingface)
        open_as(huggingface / "config.json")


def _random(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """By released name. Norms are as before training, so that activations keep their size."""
    with torch.device("meta"):
        model = OmniForTraining.from_config(ModelConfig.from_dicts(config), TorchAttention())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    drawn = {}
    for name, tensor in model.state_dict().items():
        value = torch.empty(tensor.shape, dtype=torch.bfloat16, device=device)
        if tensor.dim() > 1:
            value.normal_(std=STD)
        else:
            value.fill_(0 if name.endswith("bias") else 1)
        drawn[name] = value.cpu()
    return drawn


def _fill_up(file: Path, size: int) -> None:
    """Any token can then be shown."""
    tokenizer = json.loads(file.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    taken = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    vocabulary |= {f"w{number}": number for number in range(size) if number not in taken}
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.full_size", description=__doc__)
    parser.add_argument("directory", type=Path)
    write(parser.parse_args(argv).directory)


if __name__ == "__main__":
    main()
