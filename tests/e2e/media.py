"""Real media as request parts."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from tests.golden import DATA

PICTURE = DATA / "sample_image.jpg"  # 720 x 1480
SQUARE = DATA / "images" / "100245026.jpeg"  # 560 x 560
SOUND = DATA / "sample_audio.mp3"
SPEECH = DATA / "audios" / "0_5_0_chattts.wav"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(data: bytes, kind: str = "jpeg") -> dict[str, Any]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: bytes, kind: str = "mp3") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


def noise_png(seed: int, width: int, height: int) -> bytes:
    """A picture that no cache has seen."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def tone_wav(hertz: float, seconds: float) -> bytes:
    time = np.arange(int(seconds * 16000)) / 16000
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * hertz * time), 16000, format="WAV")
    return buffer.getvalue()
