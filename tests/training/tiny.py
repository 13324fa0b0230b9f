"""A checkpoint small enough to train in seconds, and records to train it on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from safetensors.torch import save_file

from pipeline.config import ModelConfig
from training.initialise import initial_weights
from training.tokenizer import make_tokenizer

HIDDEN = 128  # one head of the resampler

CONFIG: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 600,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "query_num": 16,
    "vision_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 14,
        "image_size": 112,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "audio_config": {
        "n_mels": 40,
        "n_ctx": 1500,
        "n_state": 64,
        "n_head": 4,
        "n_layer": 2,
        "output_dim": HIDDEN,
    },
}

PREPROCESSOR = {"max_slice_nums": 4, "scale_resolution": 112, "patch_size": 14}

GENERATION = {"do_sample": False, "temperature": 0.0}

LINES = [
    "What do you see and hear?",
    "a red square and a low tone",
    "one green circle, then silence",
    "你看到了什么？听到了什么？",
]

Turn = dict[str, Any]


def write_tiny(path: Path, seed: int = 0) -> Path:
    """The released layout with random weights in float32."""
    path.mkdir(parents=True, exist_ok=True)
    make_tokenizer(CONFIG["vocab_size"], LINES).save_pretrained(path)
    for name, value in (("config", CONFIG), ("preprocessor_config", PREPROCESSOR), ("generation_config", GENERATION)):
        (path / f"{name}.json").write_text(json.dumps(value))
    tensors = initial_weights(ModelConfig.from_pretrained(path), seed)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path / "model.safetensors")
    return path


def user(text: str = "", image: Any = None, audio: Any = None) -> Turn:
    """Media as everywhere: a path, picture or waveform, or a list of them."""
    media = {key: value for key, value in (("image", image), ("audio", audio)) if value is not None}
    return {"role": "user", "content": ({"text": text} if text else {}) | media}


def assistant(text: str) -> Turn:
    return {"role": "assistant", "content": {"text": text}}


def write_records(file: Path, records: Sequence[Sequence[Turn]]) -> Path:
    """The authors' format, a conversation a line."""
    lines = [json.dumps({"conversations": turns}, ensure_ascii=False) for turns in records]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def write_picture(file: Path, colour: str, size: tuple[int, int] = (112, 112)) -> str:
    Image.new("RGB", size, colour).save(file)
    return file.name


def tone(hertz: float, seconds: float = 0.4) -> np.ndarray:
    """float32 [n] at 16 kHz."""
    times = np.arange(round(16_000 * seconds)) / 16_000
    return (0.5 * np.sin(2 * math.pi * hertz * times)).astype(np.float32)


def write_tone(file: Path, hertz: float, seconds: float = 0.4) -> str:
    soundfile.write(file, tone(hertz, seconds), 16_000)
    return file.name
