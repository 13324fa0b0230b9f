"""Features of several conversations -> one batch, packed end to end without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from .features import Features
from .model import IGNORED


def collate(features: Sequence[Features]) -> dict[str, Any]:
    """The keyword arguments of `OmniForTraining.forward`.

    `media.positions` are where the embeds of all slices, then of all spans, stand among the T tokens.
    """
    starts = np.cumsum([0, *(len(f.input_ids) for f in features)])
    image = [start + p for start, f in zip(starts, features, strict=False) for p in f.image_positions]
    sketched = [
        (start + p, tokens) for start, f in zip(starts, features, strict=False) for p, tokens in f.sketched.items()
    ]
    audio = [start + p for start, f in zip(starts, features, strict=False) for p in f.audio_positions]
    patches = [slice_ for f in features for slice_ in f.patches]
    return {
        "input_ids": torch.tensor([t for f in features for t in f.input_ids]),
        "labels": torch.tensor([t for f in features for t in f.labels]),
        "lengths": torch.tensor([len(f.input_ids) for f in features]),
        "media": {
            "patches": torch.from_numpy(np.concatenate(patches)) if patches else torch.empty(0),
            "slice_sizes": torch.tensor([size for f in features for size in f.slice_sizes], dtype=torch.int64),
            "mels": [torch.from_numpy(mel) for f in features for mel in f.mels],
            "positions": torch.tensor([*image, *audio], dtype=torch.int64),
            "sketch": pad_sequence([torch.tensor(t) for _, t in sketched], True, IGNORED)
            if sketched
            else torch.empty(0),
            "sketch_positions": torch.tensor([p for p, _ in sketched], dtype=torch.int64),
        },
    }
