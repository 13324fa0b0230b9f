"""Which parts of the model are trained: the authors' five switches, and LoRA on the language model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from pipeline.errors import MegrezError

from .model import EMBEDDINGS, HEAD, OmniForTraining
from .saving import open_as

log = logging.getLogger(__name__)

AUDIO_PROJECTION = ("audio.audio.proj.", "audio.audio.audio_bos_eos_token.")
ADAPTER = "default"


@dataclass
class TuningArguments:
    """The authors' switches, and LoRA."""

    tune_vision_encoder: bool = field(default=False, metadata={"help": "SigLIP"})
    tune_vision_proj: bool = field(default=False, metadata={"help": "the resampler"})
    tune_llm: bool = field(default=True, metadata={"help": "the language model (its adapters, with use_lora)"})
    tune_embeddings: bool = field(
        default=True, metadata={"help": "of tokens, and a head tied to them, where the language model is tuned"}
    )
    tune_audio_encoder: bool = field(default=False, metadata={"help": "Whisper's encoder"})
    tune_audio_proj: bool = field(default=False, metadata={"help": "the linear layer, the begin and end vectors"})
    use_lora: bool = field(default=False, metadata={"help": "train low-rank adapters instead of the language model"})
    lora_r: int = 64
    lora_alpha: int = 64
    lora_dropout: float = 0.05
    lora_target_modules: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj"])


def part_of(name: str) -> str:
    """The switch that a tensor belongs to, by its released name."""
    if name.startswith("vision.vpm."):
        return "tune_vision_encoder"
    if name.startswith("vision.resampler."):
        return "tune_vision_proj"
    if name.startswith(AUDIO_PROJECTION):
        return "tune_audio_proj"
    if name.startswith("audio."):
        return "tune_audio_encoder"
    return "tune_llm"


def apply_tuning(model: OmniForTraining, tuning: TuningArguments) -> None:
    """Freezes what isn't tuned; adds adapters with LoRA. Raises MegrezError when nothing is left."""
    if tuning.use_lora and not tuning.tune_llm:
        raise MegrezError("use_lora trains adapters of the language model; it needs tune_llm: true")
    for name, parameter in model.named_parameters():
        frozen = name == EMBEDDINGS and not tuning.tune_embeddings
        parameter.requires_grad_(getattr(tuning, part_of(name)) and not frozen)
    if tuning.use_lora:
        _check_targets(model, tuning)
        tuned = [p for name, p in model.named_parameters() if p.requires_grad and part_of(name) != "tune_llm"]
        inject_adapter_in_model(_lora_config(tuning), model, adapter_name=ADAPTER)
        for parameter in tuned:  # peft freezes all but its own
            parameter.requires_grad_(True)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not count:
        raise MegrezError("every part is frozen: set at least one tune_… switch to true")
    log.info("training %s of %s parameters", f"{count:,}", f"{sum(p.numel() for p in model.parameters()):,}")


def gather_encoders_whole(model: OmniForTraining) -> None:
    """For ZeRO-3: how often an encoder runs its inner modules depends on the media that a process has in its batch, so
    all of an encoder's tensors are gathered at once (deepspeed.utils.set_z3_leaf_modules)."""
    import_module("deepspeed.utils").set_z3_leaf_modules(model, [type(model.vision), type(model.audio)])


State = Mapping[str, torch.Tensor]
"""A model's tensors by name: its own state_dict, or what ZeRO gathered from all processes."""


def released_tensors(model: OmniForTraining, state: State) -> dict[str, torch.Tensor]:
    """The tensors under their released names, adapters merged in: W + scaling * B A (Hu et al., 2021)."""
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if ".lora_" in name or (name == HEAD and model.model_config.decoder.tie_word_embeddings):
            continue
        layer = name.removesuffix(".base_layer.weight")
        if layer in adapted:
            a, b = (state[f"{layer}.lora_{part}.{ADAPTER}.weight"].float() for part in "AB")
            tensor = tensor.float() + adapted[layer].scaling[ADAPTER] * (b @ a)
        tensors[name.replace(".base_layer.", ".")] = tensor
    return tensors


def save_adapters(model: OmniForTraining, state: State, tuning: TuningArguments, base: Path, output: Path) -> None:
    """The adapters alone in peft's own format, beside the merged checkpoint."""
    config = _lora_config(tuning)
    config.base_model_name_or_path = str(base)
    config.save_pretrained(str(output))
    adapters = get_peft_model_state_dict(model, dict(state), adapter_name=ADAPTER)
    tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in adapters.items()}
    save_file(tensors, output / "adapter_model.safetensors", metadata={"format": "pt"})
    open_as(output / "adapter_config.json")


def _check_targets(model: OmniForTraining, tuning: TuningArguments) -> None:
    modules = model.llm.model.layers[0].named_modules()
    known = sorted(name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear))
    unknown = sorted(set(tuning.lora_target_modules) - set(known))
    if unknown or not tuning.lora_target_modules:
        raise MegrezError(f"lora_target_modules can be {', '.join(known)}, not {', '.join(unknown) or 'nothing'}")


def _lora_config(tuning: TuningArguments) -> LoraConfig:
    names = "|".join(tuning.lora_target_modules)
    return LoraConfig(
        r=tuning.lora_r,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=rf"llm\.model\.layers\.\d+\.(self_attn|mlp)\.({names})",
    )
