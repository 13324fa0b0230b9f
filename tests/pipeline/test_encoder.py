from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from pipeline.encoder import AudioStage, EncodeQueue, VisionStage
from pipeline.errors import GenerationFailed, InvalidMedia, MediaTooLarge, Overloaded
from pipeline.types import AudioEmbeds, ImageEmbeds
from tests.golden import DATA

PICTURES = [DATA / "sample_image.jpg", *sorted((DATA / "images").iterdir())]
RECORDINGS = [DATA / "sample_audio.mp3", *sorted((DATA / "audios").iterdir())]


@pytest.fixture(scope="module")
def vision(golden_path: Path) -> VisionStage:
    return VisionStage.from_pretrained(golden_path, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def audio(golden_path: Path) -> AudioStage:
    return AudioStage.from_pretrained(golden_path, device="cpu", dtype="float32", max_seconds=100)


def wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(int(16000 * seconds))).astype(np.float32)


def png(size: tuple[int, int] = (30, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return buffer.getvalue()


def alone(stage: Any, data: bytes) -> Any:
    prepared = stage.prepare(data)
    return stage.assemble(prepared, stage.encode(prepared.units))


@asynccontextmanager
async def queue(stage: Any, budget: float = 20, max_queued: float = 100, **options: Any) -> AsyncIterator[EncodeQueue]:
    made: EncodeQueue[Any, Any] = EncodeQueue(stage, budget=budget, max_queued=max_queued, **options)
    try:
        yield made
    finally:
        made.close()


def play(scene: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scene, 30))


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.005)


class TestStages:
    def test_a_picture(self, vision: VisionStage) -> None:
        embeds = alone(vision, PICTURES[0].read_bytes())
        assert isinstance(embeds, ImageEmbeds)
        assert (embeds.embeds.shape, embeds.grid, embeds.tokens) == ((7, 64, 256), (2, 3), 448)

    def test_a_long_recording_is_several_spans(self, audio: AudioStage) -> None:
        samples = noise(61)
        embeds = alone(audio, wav(samples))
        assert isinstance(embeds, AudioEmbeds)
        assert embeds.spans == (752, 752, 27)
        assert embeds.tokens == len(embeds.embeds) == sum(embeds.spans)
        parts = [samples[:480_000], samples[480_000:960_000], samples[960_000:]]
        for part, got in zip(parts, embeds.embeds.split(list(embeds.spans)), strict=True):
            torch.testing.assert_close(alone(audio, wav(part)).embeds, got, rtol=1e-4, atol=1e-5)

    def test_costs(self, vision: VisionStage, audio: AudioStage) -> None:
        assert vision.prepare(PICTURES[0].read_bytes()).costs == [1.0] * 7
        assert audio.prepare(wav(noise(31.5))).costs == [30.0, 1.5]

    def test_limits(self, golden_path: Path, audio: AudioStage) -> None:
        small = VisionStage.from_pretrained(golden_path, device="cpu", dtype="float32", max_pixels=1000)
        with pytest.raises(MediaTooLarge):
            small.prepare(PICTURES[0].read_bytes())
        with pytest.raises(MediaTooLarge):
            audio.prepare(wav(np.zeros(16000 * 101, np.float32)))

    def test_bfloat16(self, golden_path: Path, vision: VisionStage) -> None:
        half = VisionStage.from_pretrained(golden_path, device="cpu", dtype="bfloat16")
        embeds = alone(half, PICTURES[1].read_bytes()).embeds
        assert embeds.dtype == torch.bfloat16
        wanted = alone(vision, PICTURES[1].read_bytes()).embeds
        assert (embeds.float() - wanted).norm() / wanted.norm() < 0.1


class TestQueue:
    @pytest.mark.parametrize("budget", [1, 4, 100])
    def test_the_same_alone_and_with_others(self, vision: VisionStage, audio: AudioStage, budget: float) -> None:
        async def scene(stage: Any, files: list[Path]) -> None:
            async with queue(stage, budget, 1000) as line:
                results = await asyncio.gather(*(line.encode(file.read_bytes()) for file in files))
                for file, (embeds, stats) in zip(files, results, strict=True):
                    wanted = alone(stage, file.read_bytes())
                    torch.testing.assert_close(embeds.embeds, wanted.embeds, rtol=1e-4, atol=1e-5)
                    assert stats.tokens == wanted.tokens
                    assert stats.nbytes == wanted.embeds.nbytes
                    assert stats.batch_units <= max(budget, 7)
                assert line.stats.queued == line.stats.running == 0

        play(scene(vision, PICTURES))
        play(scene(audio, RECORDINGS))

    def test_a_broken_medium_harms_nobody(self, vision: VisionStage) -> None:
        async def scene() -> None:
            async with queue(vision) as line:
                results = await asyncio.gather(
                    line.encode(png()), line.encode(b"garbage"), line.encode(png((20, 30))), return_exceptions=True
                )
                assert isinstance(results[1], InvalidMedia)
                assert [r[0].tokens for r in (results[0], results[2])] == [64, 64]

        play(scene())

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_sound_that_overflows_is_refused(self, audio: AudioStage) -> None:
        async def scene() -> None:
            async with queue(audio) as line:
                with pytest.raises(InvalidMedia, match="finite"):
                    await line.encode(
                        wav(np.full(16000, 1e30, np.float32) * np.sin(np.arange(16000, dtype=np.float32)))
                    )
                assert (await line.encode(wav(noise(1))))[0].spans == (27,)

        play(scene())

    def test_embeds_that_are_no_numbers_are_an_error(self, vision: VisionStage) -> None:
        """They would be kept, and everybody's who sends this picture."""

        class Spoilt(VisionStage):
            def encode(self, units: list[Any], checkpoint: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
                encoded = super().encode(units, checkpoint)
                return [out * torch.nan if len(units) == 1 else out for out in encoded]

        async def scene() -> None:
            async with queue(Spoilt(vision.model, vision.config, vision.max_pixels)) as line:
                with pytest.raises(GenerationFailed, match="not finite"):
                    await line.encode(png())
                assert (await line.encode(PICTURES[0].read_bytes()))[0].tokens == 448

        play(scene())

    def test_cancelling_frees_the_place(self, vision: VisionStage) -> None:
        entered, gate = threading.Event(), threading.Event()

        class Slow(VisionStage):
            def encode(self, units: list[Any], checkpoint: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
                entered.set()
                while not gate.wait(0.005):
                    checkpoint()
                return super().encode(units, checkpoint)

        async def scene() -> None:
            async with queue(Slow(vision.model, vision.config, vision.max_pixels)) as line:
                task = asyncio.create_task(line.encode(png()))
                await until(entered.is_set)
                task.cancel()
                begin = time.monotonic()
                await asyncio.gather(task, return_exceptions=True)
                await until(lambda: line.stats.running == line.stats.queued == 0)
                assert time.monotonic() - begin < 1
                assert line.stats.dropped == 1
                gate.set()
                assert (await line.encode(png()))[0].tokens == 64

        play(scene())

    def test_cancelling_while_decoding(self, vision: VisionStage) -> None:
        """Only the picture in hand is decoded to its end."""
        gate, begun = threading.Event(), []

        class Slow(VisionStage):
            def prepare(self, data: bytes) -> Any:
                begun.append(data)
                gate.wait(5)
                return super().prepare(data)

        async def scene() -> None:
            async with queue(Slow(vision.model, vision.config, vision.max_pixels), workers=1) as line:
                tasks = [asyncio.create_task(line.encode(png())) for _ in range(4)]
                await until(lambda: begun)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                gate.set()
                assert (await line.encode(png((20, 30))))[0].tokens == 64
                assert begun == [png(), png((20, 30))]
                assert line.stats.units == 1

        play(scene())

    def test_overload(self, vision: VisionStage) -> None:
        async def scene() -> None:
            async with queue(vision, budget=7, max_queued=8) as line:
                data = PICTURES[0].read_bytes()
                results = await asyncio.gather(*(line.encode(data) for _ in range(10)), return_exceptions=True)
                refused = [r for r in results if isinstance(r, Overloaded)]
                served = [r for r in results if isinstance(r, tuple)]
                assert refused
                assert served
                assert len(refused) + len(served) == 10

        play(scene())

    def test_resizing(self, vision: VisionStage) -> None:
        async def scene() -> None:
            async with queue(vision, budget=1, max_queued=100) as line:
                before = asyncio.create_task(line.encode(PICTURES[0].read_bytes()))
                await until(lambda: line.stats.batches > 0)
                line.resize(budget=3, max_queued=7, workers=1, threads=1)
                assert (await before)[1].batch_units == 3
                assert (await line.encode(PICTURES[0].read_bytes()))[1].batch_units == 3

        play(scene())
