"""Trained weights as a checkpoint in the released layout: at a run's end, or from where it has come to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline.config import ImageProcessorConfig, ModelConfig
from pipeline.errors import MegrezError
from pipeline.model.weights import torch_dtype, unused_tensors

from .arguments import DataArguments, FinetuneArguments
from .average import EMA_FILE
from .model import OmniForTraining
from .resuming import refuse_other_model
from .saving import save_released
from .trainer import whole_checkpoints
from .tuning import TuningArguments, apply_tuning, released_tensors, save_adapters

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


def export(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> Path:
    """Writes what a checkpoint on the way in `output_dir` holds (of an average, where there is one) to a directory
    beside it, and returns that. Needs no other process, and of DeepSpeed only that it has gathered the weights.

    Raises MegrezError, CheckpointError.
    """
    source, folder = checkpoint_of(data), Path(training.output_dir) / data.export
    there = [path for path in whole_checkpoints(folder.parent) if (path / WEIGHTS).is_file()]
    if folder not in there:
        names = ", ".join(path.name for path in there) or "none"
        raise MegrezError(f"{folder} is no checkpoint that can be exported; there are: {names}")
    refuse_other_model(data, tuning, training)
    state = load_file(folder / WEIGHTS)
    if (folder / EMA_FILE).exists():
        state |= load_file(folder / EMA_FILE)
    model = OmniForTraining.from_pretrained(source)
    apply_tuning(model, tuning)
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (model.state_dict(), state)]
    if shapes[0] != shapes[1]:
        raise MegrezError(f"{folder} was trained from another checkpoint, or with other use of LoRA")
    output = folder.with_name(f"exported-{folder.name.removeprefix('checkpoint-')}")
    save(model, state, data, tuning, output)
    return output


def save(
    model: OmniForTraining,
    state: Mapping[str, torch.Tensor],
    data: DataArguments,
    tuning: TuningArguments,
    output: Path,
) -> None:
    """`state`, the model's tensors or what ZeRO gathered of them, in the released layout; adapters beside it."""
    chosen = image_processor(data)
    preprocessor = {"max_slice_nums": chosen.max_slice_nums, "scale_resolution": chosen.scale_resolution}
    source = checkpoint_of(data)
    tensors = released_tensors(model, state)
    for stage in (model.llm, model.vision, model.audio):
        tensors |= unused_tensors(stage, source)
    save_released(source, output, tensors, dtype=torch_dtype(data.save_dtype), preprocessor=preprocessor)
    if tuning.use_lora:
        save_adapters(model, state, tuning, source, output / "adapter")
    log.info("wrote %s", output)


def image_processor(data: DataArguments) -> ImageProcessorConfig:
    """How pictures are cut: the checkpoint's way, with what the arguments change."""
    changes: dict[str, Any] = {
        name: value for name in ("max_slice_nums", "scale_resolution") if (value := getattr(data, name)) is not None
    }
    return replace(ModelConfig.from_pretrained(checkpoint_of(data)).image_processor, **changes)


def checkpoint_of(data: DataArguments) -> Path:
    if not data.checkpoint:
        raise MegrezError("checkpoint names no directory to start from")
    return Path(data.checkpoint)
