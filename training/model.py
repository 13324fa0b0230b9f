"""The model that is trained: the three stages that `pipeline` serves, in one module, with a loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import TrainingArguments

from pipeline.config import ModelConfig
from pipeline.errors import MegrezError
from pipeline.model.attention import Attention, Packing, make_attention
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import PatchedSlice, VisionModel
from pipeline.model.weights import load_stage

from .attention import MatmulAttention
from .hardware import rounded_up
from .norms import cast_norms_once

HEAD, EMBEDDINGS = "llm.lm_head.weight", "llm.model.embed_tokens.weight"

LOUDNESS = (0.5, 1.4)
SAID_NOISE, BLANK_NOISE = (0.2, 1.4), (0.0, 0.7)
MISREAD = 0.7
"""How far embeds of sketches are from the sum of their tokens' embeddings: a factor; normal noise, in standard
deviations of a token's embedding; and the greatest share of something else of the batch that is mixed in. So far off
are encoders' embeds: those of letters have a cosine of 0.6 to the letter's embedding, of words 0.7, of blanks 0.9, and
what comes second to a letter has 0.4 of its own embedding in them."""

BLANK = 0
"""The default checkpoint's token that stands at a medium's places."""

SHORTEST_MEL = 4
"""Frames that make one embed."""

IGNORED = -100
"""The label of a position that no loss is taken at (torch's cross_entropy default)."""


class OmniForTraining(nn.Module):
    """State names are the released tensor names: `llm.…`, `vision.…`, `audio.…`."""

    accepts_loss_kwargs = True  # transformers' Trainer then gives num_items_in_batch
    noise = 1.0  # in training, how far off sketches are, as a share of how far off encoders' embeds are

    def __init__(self, model_config: ModelConfig, llm: DecoderModel, vision: VisionModel, audio: AudioModel) -> None:
        super().__init__()
        self.model_config = model_config
        self.llm, self.vision, self.audio = llm, vision, audio
        cast_norms_once(self)
        self.register_state_dict_post_hook(_without_tied)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_tied_is_not_missing)  # type: ignore[no-untyped-call]

    @classmethod
    def from_config(cls, config: ModelConfig, attention: Attention) -> OmniForTraining:
        return cls(
            config,
            DecoderModel(config.decoder, attention),
            VisionModel(config.vision, attention),
            AudioModel(config.audio, attention),
        )

    @classmethod
    def from_pretrained(cls, path: str | Path, attention: Attention | None = None) -> OmniForTraining:
        """A checkpoint in the released layout, its weights in float32 and on the CPU: a trainer moves or shares them
        out. `attention` is of the device that it will compute on, else the CPU's. Raises CheckpointError."""
        config, cpu = ModelConfig.from_pretrained(path), torch.device("cpu")
        kernel = attention or training_attention("auto", cpu, torch.float32)
        builders = (
            lambda: DecoderModel(config.decoder, kernel),
            lambda: VisionModel(config.vision, kernel),
            lambda: AudioModel(config.audio, kernel),
        )
        stages: Any = [load_stage(build, path, dtype=torch.float32, device=cpu) for build in builders]
        return cls(config, *stages).requires_grad_(True)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        lengths: torch.Tensor,
        media: Mapping[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Sequences laid end to end: input_ids, labels int64 [T], `lengths` sum to T.

        `labels[i]` is the token wanted after position i, or IGNORED. `media` is the collator's: what
        the encoders take, and the positions [n] that their embeds replace. The loss is the sum over
        labelled positions, divided by `num_items_in_batch` or, without it, by their number.
        """
        chosen = (labels != IGNORED).nonzero().flatten()
        logits = self.llm.lm_head(self.hidden(input_ids, lengths, media, chosen)).float()
        total = F.cross_entropy(logits, labels[chosen], reduction="sum")
        count = len(chosen) if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count}

    def hidden(
        self,
        input_ids: torch.Tensor,
        lengths: torch.Tensor,
        media: Mapping[str, Any],
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states at every position, [T, D], or at those `wanted`, int64 [N] -> [N, D]."""
        embeds = self.llm.model.embed_tokens(input_ids)
        blank = PatchedSlice(embeds.new_zeros(1, 3 * self.model_config.image_processor.patch_size**2), 1, 1)
        silence = embeds.new_zeros(self.model_config.audio.n_mels, SHORTEST_MEL)
        parts: list[torch.Tensor] = []
        found: tuple[tuple[nn.Module, list[Any], Any], ...] = (
            (self.vision, _slices(media["patches"], media["slice_sizes"]), blank),
            (self.audio, media["mels"], silence),
        )
        for stage, items, nothing in found:
            if items:
                parts += stage(items)
            elif _takes_part(stage):
                embeds = embeds + stage([nothing])[0].sum().to(embeds.dtype) * 0.0
        if parts:
            embeds = embeds.index_copy(0, media["positions"], torch.cat(parts).to(embeds.dtype))
        if len(media["sketch"]):
            embeds = embeds.index_copy(0, media["sketch_positions"], self._sketched(media["sketch"]).to(embeds.dtype))
        packed, total = tuple(lengths.tolist()), len(embeds)
        if more := rounded_up(total) - total if embeds.device.type == "cpu" else 0:
            embeds, packed = F.pad(embeds, (0, 0, 0, more)), (*packed, more)  # a sequence that nobody looks at
        return self.llm.hidden(embeds, Packing(packed), wanted)[:total]

    def _sketched(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [n, most], padded with IGNORED: each row's embeddings added up, in training as if by an encoder."""
        table = self.llm.model.embed_tokens.weight
        total = (table[tokens.clamp(min=0)] * (tokens != IGNORED)[..., None]).sum(1)  # [n, D]
        if not self.training:
            return total
        says = tokens[:, 0] != BLANK
        said, n = says[:, None], len(total)
        loudness, noise, share = torch.rand(3, n, 1, device=total.device)
        low, high = (torch.where(said, *bounds) for bounds in zip(SAID_NOISE, BLANK_NOISE, strict=True))
        far = torch.lerp(low, high, noise) * table.detach().std() * torch.randn_like(total)
        if says.any():
            others = total[says]
            others = others[torch.randint(len(others), (n,), device=total.device)]
            far = far + MISREAD * torch.where(said, share, share**4) * others
        return torch.lerp(total, total * (LOUDNESS[0] + (LOUDNESS[1] - LOUDNESS[0]) * loudness) + far, self.noise)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Layers keep their inputs only and compute again on the way back. transformers' Trainer calls it."""
        if offload:
            raise MegrezError("activation_checkpointing_kwargs: offload is not supported")
        options = {"use_reentrant": False} | (activation_checkpointing_kwargs or {})
        layers = [*self.llm.model.layers, *self.vision.vpm.encoder.layers, *self.audio.audio.blocks]
        for layer in layers[::every_n_layers]:
            layer.forward = partial(checkpoint, layer.forward, **options)


def attention_for(arguments: TrainingArguments, name: str = "auto") -> Attention:
    """The kernel for the device and the precision that transformers' Trainer will compute in."""
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32
    return training_attention(name, arguments.device, dtype)


def training_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """The kernel for products of `dtype` on `device`. 'auto' is flash-attn on CUDA where it is installed and dtype is
    half, torch's otherwise; and on a CPU products that autocast can speed up."""
    if name == "auto" and device.type == "cpu":
        return MatmulAttention()
    return make_attention(name, device, dtype)


def _takes_part(stage: nn.Module) -> bool:
    """Whether a stage without media in a batch looks at nothing, for a gradient of zero: when several processes train
    together, each must run the same modules in the same order, and bring a gradient for every parameter."""
    return torch.distributed.is_initialized() or any(p.requires_grad for p in stage.parameters())


def _slices(patches: torch.Tensor, sizes: torch.Tensor) -> list[PatchedSlice]:
    if not len(sizes):
        return []
    shapes = sizes.tolist()  # from a GPU at once
    parts = patches.split([rows * columns for rows, columns in shapes])
    return [PatchedSlice(part, rows, columns) for part, (rows, columns) in zip(parts, shapes, strict=True)]


def _without_tied(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """A tied head is stored once, as the embeddings."""
    if module.model_config.decoder.tie_word_embeddings:  # type: ignore[union-attr]
        state.pop(f"{prefix}{HEAD}", None)


def _tied_is_not_missing(module: nn.Module, result: Any) -> None:
    if module.model_config.decoder.tie_word_embeddings:  # type: ignore[union-attr]
        result.missing_keys[:] = [name for name in result.missing_keys if not name.endswith(HEAD)]
