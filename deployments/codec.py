"""Values that cross process borders <-> the pipeline's types.

Embeds travel as contiguous numpy arrays, which the object store hands on without copying.
bfloat16, which numpy lacks, travels as int16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.types import AudioEmbeds, Delta, ImageEmbeds, MediaEmbeds, Modality, PromptUsage


@dataclass(frozen=True)
class PackedEmbeds:
    """`array` is [slices, query_num, D] for a picture, [sum(spans), D] for a recording."""

    modality: Modality
    array: np.ndarray
    bfloat16: bool
    grid: tuple[int, int] | None = None
    spans: tuple[int, ...] = ()


@dataclass(frozen=True)
class Piece:
    """What the decoder streams: deltas, and with the first of them the prompt's token counts."""

    deltas: list[Delta]
    usage: PromptUsage | None = None


def pack(embeds: MediaEmbeds) -> PackedEmbeds:
    tensor = embeds.embeds.detach().to("cpu").contiguous()
    half = tensor.dtype == torch.bfloat16
    array = (tensor.view(torch.int16) if half else tensor.float()).numpy()
    if isinstance(embeds, ImageEmbeds):
        return PackedEmbeds("image", array, half, grid=embeds.grid)
    return PackedEmbeds("audio", array, half, spans=embeds.spans)


def unpack(packed: PackedEmbeds) -> MediaEmbeds:
    """Copies: what arrives is a read-only view into the object store."""
    tensor = torch.from_numpy(packed.array.copy())
    if packed.bfloat16:
        tensor = tensor.view(torch.bfloat16)
    if packed.modality == "image":
        return ImageEmbeds(tensor, packed.grid)
    return AudioEmbeds(tensor, packed.spans)
