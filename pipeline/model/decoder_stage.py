"""Which decoder computes a checkpoint: native kernels on a CPU in float32, torch's modules elsewhere, on a GPU with
flash-attn and steps of decodes replayed as CUDA graphs."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..config import ModelConfig
from ..errors import MegrezError
from ..types import WeightStorage
from .attention import make_attention
from .decoder import DecoderModel
from .graphed_decoder import Fusion, GraphedDecoder
from .native_decoder import NativeDecoder, misfit
from .weights import load_stage, torch_dtype

log = logging.getLogger(__name__)


def load_decoder(
    path: str | Path,
    *,
    device: str,
    dtype: str,
    attention: str,
    weights: WeightStorage = "auto",
    cuda_graphs: bool = True,
) -> tuple[ModelConfig, DecoderModel | NativeDecoder | GraphedDecoder]:
    """A checkpoint's configuration and its language stage. `attention`: auto, native, torch or flash. `cuda_graphs`:
    false compiles and captures nothing.

    Raises CheckpointError, and MegrezError for what doesn't fit together.
    """
    config = ModelConfig.from_pretrained(path)
    target, kind = torch.device(device), torch_dtype(dtype)
    native = attention == "native" or (attention == "auto" and target.type == "cpu" and kind == torch.float32)
    if attention == "native" and (target.type != "cpu" or kind != torch.float32):
        raise MegrezError("attention 'native' computes on device: cpu in dtype: float32")
    if native and attention == "auto" and (reason := misfit(config.decoder)):
        log.warning("the decoder runs on torch, not on the native kernels: %s", reason)
        native = False
    if not native and weights != "auto":
        raise MegrezError(f"weights: {weights} needs the native kernels: device: cpu, dtype: float32, attention: auto")
    kernel = make_attention("torch" if native else attention, target, kind)
    stored = None if native else kind  # packed from what is in the files, layer by layer
    model = load_stage(lambda: DecoderModel(config.decoder, kernel), path, dtype=stored, device=target)
    if native:
        return config, NativeDecoder(model, weights)
    if target.type == "cuda" and kernel.replayable and cuda_graphs:
        return config, GraphedDecoder(model, fusion=Fusion(model))
    return config, model
