"""The default checkpoint before training: Megrez-Omni's architecture, small, seeded.

    python -m training.default_model DIRECTORY

Every tensor is drawn from the seed and its own name, so the file is the same each time.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.model.vision import sincos_2d

from .corpus import tokenizer_lines
from .model import OmniForTraining
from .tokenizer import train_tokenizer

VOCAB_SIZE = 2048

CONFIG: dict[str, Any] = {
    "architectures": ["MegrezO"],
    "model_type": "megrezo",
    "hidden_size": 256,
    "intermediate_size": 480,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
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
        "intermediate_size": 480,
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

EMBED_STD = 0.1  # of token embeddings and of the encoders' outputs alike


def initial_weights(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    """float32 by name: normal, scaled by fan-in; ones for norms, zeros for biases; positions as sinusoids."""
    with torch.device("meta"):
        model = OmniForTraining.from_config(config, TorchAttention())
    tensors = {name: _draw(name, tuple(t.shape), seed, config) for name, t in model.state_dict().items()}
    side, width = config.vision.positions_per_side, config.vision.hidden_size
    tensors["vision.vpm.embeddings.position_embedding.weight"] = 0.5 * sincos_2d(width, side, side).clone()
    positions, states = config.audio.n_ctx, config.audio.n_state
    tensors["audio.audio.positional_embedding"] = sincos_2d(2 * states, 1, positions)[:, :states].clone()
    return tensors | _local_resampler(config)


def _draw(name: str, shape: tuple[int, ...], seed: int, config: ModelConfig) -> torch.Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    x = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode())).standard_normal(shape).astype(np.float32)
    std = 1 / math.sqrt(np.prod(shape[1:]))
    if "embed_tokens" in name or "bos_eos" in name:
        std = EMBED_STD
    elif name in ("vision.resampler.proj", "audio.audio.proj.weight"):
        std *= EMBED_STD
    for prefix, parts, layers in (  # the sum of all layers' outputs keeps the size of one (GPT-2)
        ("llm", ("o_proj", "down_proj"), config.decoder.num_hidden_layers),
        ("vision", ("out_proj", "fc2"), config.vision.num_hidden_layers),
        ("audio", ("attn.out", "mlp.2"), config.audio.n_layer),
    ):
        if name.startswith(prefix) and "resampler" not in name and any(part in name for part in parts):
            std /= math.sqrt(2 * layers)
    return torch.from_numpy(x * np.float32(std))


def _local_resampler(config: ModelConfig) -> dict[str, torch.Tensor]:
    """A resampler whose queries begin by looking at places of their own, a grid over a square slice.

    Keys carry the sin-cos position embedding, so a query that is the embedding of a place, compared in
    the dimensions whose frequencies tell near places apart, attends to it. From random queries the
    decoder's loss takes hours to find that out.
    """
    d, side = config.decoder.hidden_size, math.isqrt(config.vision.query_num)
    per_slice = config.image_processor.scale_resolution // config.image_processor.patch_size
    step = per_slice // side
    places = sincos_2d(d, per_slice, per_slice).view(per_slice, per_slice, d)
    query = (places[::step, ::step] + places[step - 1 :: step, step - 1 :: step]).reshape(side * side, d) / 2
    quarter = d // 4
    near = torch.arange(d) % quarter < quarter // 4  # frequencies from 1 down to 1/10 a patch
    heads = d // 128
    picked = torch.zeros(d, d)
    dims = near.nonzero().flatten()
    for head in range(heads):
        picked[head * 128 + torch.arange(len(dims)), dims] = 2.0
    value = _draw("vision.resampler.attn.value", (d, d), 0, config)
    return {
        "vision.resampler.query": query.clone(),
        "vision.resampler.attn.in_proj_weight": torch.cat([picked, picked, value]),
        "vision.resampler.ln_kv.weight": torch.full((d,), 0.3),
    }


def write_initial(path: Path, seed: int = 0) -> None:
    """Writes the whole directory in the released layout."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(VOCAB_SIZE, tokenizer_lines())
    tokenizer.save_pretrained(path)
    ends = [tokenizer.convert_tokens_to_ids(text) for text in ("<|turn_end|>", "<|eos|>")]
    _write_json(path / "config.json", CONFIG)
    _write_json(path / "preprocessor_config.json", PREPROCESSOR)
    _write_json(path / "generation_config.json", GENERATION | {"eos_token_id": ends})
    tensors = initial_weights(ModelConfig.from_pretrained(path), seed)
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
