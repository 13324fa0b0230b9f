"""The encoder stages without Ray: bytes of a medium in, embeds out.

`VisionStage` and `AudioStage` are the two encoders as plain functions: `prepare` (decode, cut),
`encode` (a batch of units through the network), `assemble`. `EncodeQueue` puts either behind a
line, so that units of many requests share a batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from .batching import Batcher, BatcherStats
from .config import AudioProcessorConfig, ImageProcessorConfig
from .errors import GenerationFailed
from .model.audio import AudioModel
from .model.vision import PatchedSlice, VisionModel
from .model.weights import load_pretrained
from .processing import audio as audio_processing
from .processing import image as image_processing
from .types import AudioEmbeds, EncodeStats, ImageEmbeds

Unit = TypeVar("Unit")
Embeds = TypeVar("Embeds", bound=ImageEmbeds | AudioEmbeds, covariant=True)


@dataclass(frozen=True)
class Prepared(Generic[Unit]):
    """One medium, ready for the network. `costs` are slices, or seconds, a unit."""

    units: list[Unit]
    costs: list[float]
    grid: tuple[int, int] | None = None


class Stage(Protocol[Unit, Embeds]):
    def prepare(self, data: bytes) -> Prepared[Unit]: ...

    def encode(self, units: list[Unit], checkpoint: Callable[[], None]) -> list[torch.Tensor]: ...

    def assemble(self, prepared: Prepared[Unit], outs: list[torch.Tensor]) -> Embeds: ...


class VisionStage:
    def __init__(self, model: VisionModel, config: ImageProcessorConfig, max_pixels: int) -> None:
        self.model, self.config, self.max_pixels = model, config, max_pixels

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str, dtype: str, attention: str = "auto", max_pixels: int = 40_000_000
    ) -> VisionStage:
        config, model = load_pretrained(
            path, lambda c, kernel: VisionModel(c.vision, kernel), device=device, dtype=dtype, attention=attention
        )
        return cls(model, config.image_processor, max_pixels)

    def prepare(self, data: bytes) -> Prepared[PatchedSlice]:
        return self.prepare_image(image_processing.decode_image(data, self.max_pixels))

    def prepare_image(self, image: Image.Image) -> Prepared[PatchedSlice]:
        sliced = image_processing.slice_image(image, self.config)
        units = []
        for picture in sliced.slices:
            patches, rows, columns = image_processing.patchify(picture, self.config.patch_size)
            units.append(PatchedSlice(torch.from_numpy(patches), rows, columns))
        return Prepared(units, [1.0] * len(units), sliced.grid)

    def encode(self, units: list[PatchedSlice], checkpoint: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
        return self.model.encode(units, checkpoint)

    def warm_up(self) -> None:
        """The first picture of a process pays for imports and allocations: here, not in a request."""
        self.encode(self.prepare_image(Image.new("RGB", (64, 64))).units)

    def assemble(self, prepared: Prepared[PatchedSlice], outs: list[torch.Tensor]) -> ImageEmbeds:
        return ImageEmbeds(torch.stack(outs), prepared.grid)


class AudioStage:
    def __init__(self, model: AudioModel, config: AudioProcessorConfig, max_seconds: float) -> None:
        self.model, self.config, self.max_seconds = model, config, max_seconds

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str, dtype: str, attention: str = "auto", max_seconds: float = 600.0
    ) -> AudioStage:
        config, model = load_pretrained(
            path, lambda c, kernel: AudioModel(c.audio, kernel), device=device, dtype=dtype, attention=attention
        )
        return cls(model, config.audio_processor, max_seconds)

    def prepare(self, data: bytes) -> Prepared[torch.Tensor]:
        return self._spans(audio_processing.decode_audio(data, self.max_seconds, self.config))

    def prepare_waveform(self, samples: np.ndarray) -> Prepared[torch.Tensor]:
        """samples: mono float32 [n] at 16 kHz."""
        rate = self.config.sampling_rate
        return self._spans(audio_processing.prepare_waveform(samples, rate, self.max_seconds, self.config))

    def _spans(self, samples: np.ndarray) -> Prepared[torch.Tensor]:
        """A waveform that has been checked and resampled, by either way in."""
        parts = audio_processing.split_waveform(samples, self.config)
        mels = [torch.from_numpy(audio_processing.log_mel(part, self.config)) for part in parts]
        return Prepared(mels, [len(part) / self.config.sampling_rate for part in parts])

    def encode(self, units: list[torch.Tensor], checkpoint: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
        return self.model.encode(units, checkpoint)

    def warm_up(self) -> None:
        """The first recording of a process pays for librosa's imports and compilation, seconds of it:
        here, not in a request."""
        silence = audio_processing.prepare_waveform(np.zeros(24000, np.float32), 48000, self.max_seconds, self.config)
        self.encode(self._spans(silence).units)

    def assemble(self, prepared: Prepared[torch.Tensor], outs: list[torch.Tensor]) -> AudioEmbeds:
        return AudioEmbeds(torch.cat(outs), tuple(len(out) for out in outs))


class EncodeQueue(Generic[Unit, Embeds]):
    """One encoder behind a line. Decoding runs in `workers` threads, the network in one."""

    def __init__(
        self,
        stage: Stage[Unit, Embeds],
        *,
        budget: float,
        max_queued: float,
        workers: int = 2,
        on_batch: Callable[[float], object] = lambda cost: None,
    ) -> None:
        """`on_batch` is told what each batch costs."""
        self._stage = stage
        self.batcher: Batcher[Unit, torch.Tensor] = Batcher(
            stage.encode, budget=budget, max_queued=max_queued, on_batch=on_batch
        )
        self._decoders = _decoders(workers)

    async def encode(self, data: bytes) -> tuple[Embeds, EncodeStats]:
        """Embeds on the CPU, and what they cost.

        Raises InvalidMedia, MediaTooLarge, Overloaded, GenerationFailed. Cancelling it frees its place.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._decoders, self._stage.prepare, data)
        begin = time.perf_counter()
        outs, batch = await self.batcher.submit(prepared.units, prepared.costs)
        # In a thread: on a GPU the copy waits for the stream, and the loop must not.
        embeds = await loop.run_in_executor(self._decoders, self._finish, prepared, outs)
        tensor = embeds.embeds
        seconds = time.perf_counter() - begin
        size = tensor.numel() * tensor.element_size()
        return embeds, EncodeStats(sum(prepared.costs), seconds, batch, embeds.tokens, size)

    def _finish(self, prepared: Prepared[Unit], outs: list[torch.Tensor]) -> Embeds:
        embeds = self._stage.assemble(prepared, [out.cpu() for out in outs])
        if not torch.isfinite(embeds.embeds).all():
            raise GenerationFailed("the encoder gave values that are not finite numbers for this medium")
        return embeds

    def resize(self, *, budget: float, max_queued: float, workers: int, threads: int) -> None:
        """New limits for what comes from now on; what is under way goes on."""
        self.batcher.budget, self.batcher.max_queued = budget, max_queued
        self.batcher.call(torch.set_num_threads, threads)  # counts for the thread that calls it
        self._decoders.shutdown(wait=False)
        self._decoders = _decoders(workers)

    @property
    def stats(self) -> BatcherStats:
        return self.batcher.stats

    def close(self) -> None:
        self.batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)


def _decoders(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="decode")
