from __future__ import annotations

import numpy as np
from PIL import Image

LIMIT = 40_000_000
"""Pixels, as served by default."""


def noise(width: int = 48, height: int = 32) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
