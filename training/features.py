"""A conversation -> what one training step takes: token ids, labels, patches, mels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.config import ImageProcessorConfig, ModelConfig
from pipeline.errors import InvalidMedia, InvalidRequest
from pipeline.processing import audio as audio_processing
from pipeline.processing import image as image_processing
from pipeline.processing.chat import build_prompt
from pipeline.processing.tokenizer import Tokenizer
from pipeline.types import AudioEmbeds, ImageEmbeds, MediaEmbeds, Message

from .model import IGNORED
from .sketch import PictureSketch, SpeechSketch, Words

MAX_PIXELS = 200_000_000
MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Features:
    """One conversation. `labels[i]` is the token wanted after position i, or IGNORED."""

    input_ids: list[int]
    labels: list[int]
    patches: list[np.ndarray]  # float32 [rows * columns, 3 * patch²] a slice
    slice_sizes: list[tuple[int, int]]
    mels: list[np.ndarray]  # float32 [n_mels, 2 * frames] a span
    image_positions: list[int]
    audio_positions: list[int]
    sketched: dict[int, list[int]] = field(default_factory=dict)
    """Positions of sketched media: the tokens whose embeddings add up to the embed there."""


class Featuriser:
    """Lays a conversation out exactly as the served model sees it, and marks what it must learn to say."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        image: ImageProcessorConfig | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.config, self.tokenizer, self.max_pixels = config, tokenizer, max_pixels
        self.image = image or config.image_processor

    @classmethod
    def from_pretrained(
        cls, path: str | Path, image: ImageProcessorConfig | None = None, max_pixels: int = MAX_PIXELS
    ) -> Featuriser:
        return cls(ModelConfig.from_pretrained(path), Tokenizer(path), image, max_pixels)

    def __call__(self, conversations: Sequence[Mapping[str, Any]]) -> Features:
        """`conversations` in the authors' format; media are paths, pictures or 16 kHz waveforms.

        Raises InvalidMedia and InvalidRequest for what can't be trained on.
        """
        patches: list[np.ndarray] = []
        sizes: list[tuple[int, int]] = []
        mels: list[np.ndarray] = []
        media: list[MediaEmbeds] = []
        sketches: dict[int, list[Words]] = {}  # by medium: the words at each of its embeds
        messages: list[Message] = []
        for number, turn in enumerate(conversations):
            content = turn["content"]
            content = {"text": content} if isinstance(content, str) else content
            first = len(media)
            for source in listed(content.get("image")):
                if isinstance(source, PictureSketch):
                    media.append(ImageEmbeds(_shape(len(source.slices), self.config.vision.query_num), source.grid))
                    sketches[len(media) - 1] = [words for piece in source.slices for words in piece]
                    continue
                with _told(number, "image", source):
                    sliced = image_processing.slice_image(self._picture(source), self.image)
                for picture in sliced.slices:
                    values, rows, columns = image_processing.patchify(picture, self.image.patch_size)
                    patches.append(values)
                    sizes.append((rows, columns))
                media.append(ImageEmbeds(_shape(len(sliced.slices), self.config.vision.query_num), sliced.grid))
            middle = len(media)
            for source in listed(content.get("audio")):
                if isinstance(source, SpeechSketch):
                    media.append(AudioEmbeds(_shape(len(source.embeds) + 2), (len(source.embeds) + 2,)))
                    sketches[len(media) - 1] = [(), *source.embeds, ()]
                    continue
                with _told(number, "audio", source):
                    stretches = self._stretches(source)
                spans = [audio_processing.log_mel(part, self.config.audio_processor) for part in stretches]
                mels += spans
                tokens = tuple(self._span(mel.shape[1] // 2) for mel in spans)
                media.append(AudioEmbeds(_shape(sum(tokens)), tokens))
            images, audios = tuple(range(first, middle)), tuple(range(middle, len(media)))
            messages.append(Message(turn["role"], content.get("text") or "", images, audios))
        prompt = build_prompt(self.tokenizer, messages, media, add_generation_prompt=False)
        positions: dict[type, list[int]] = {ImageEmbeds: [], AudioEmbeds: []}
        sketched: dict[int, list[int]] = {}
        for span in prompt.spans:
            if span.media in sketches:
                for i, words in enumerate(sketches[span.media][span.offset : span.offset + span.length]):
                    sketched[span.start + i] = self._tokens(words)
            else:
                positions[type(media[span.media])] += range(span.start, span.start + span.length)
        labels = self._labels(prompt.token_ids, messages, media)
        return Features(
            list(prompt.token_ids),
            labels,
            patches,
            sizes,
            mels,
            positions[ImageEmbeds],
            positions[AudioEmbeds],
            sketched,
        )

    def _tokens(self, words: Words) -> list[int]:
        """A token a word; nothing at all is what stands at a medium's places in the prompt."""
        ids = [token for word in words for token in self.tokenizer.encode(word, allow_special=False)]
        assert len(ids) == len(words), f"{words} are not one token each"
        return ids or [self.tokenizer.special("unk")]

    def _labels(self, ids: Sequence[int], messages: list[Message], media: list[MediaEmbeds]) -> list[int]:
        """What each position should say next: an assistant's tokens, its closing token included."""
        labels = [IGNORED] * len(ids)
        stop = self.tokenizer.special("turn_end")
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = build_prompt(self.tokenizer, messages[:number], media).token_ids
            if list(ids[: len(before)]) != list(before):
                raise InvalidRequest(
                    "the chat template lays earlier turns out differently when more follow", "messages"
                )
            end = ids.index(stop, len(before)) if stop in ids[len(before) :] else len(ids) - 1
            for i in range(len(before), end + 1):
                labels[i - 1] = ids[i]
        return labels

    def _picture(self, source: Any) -> Image.Image:
        if isinstance(source, Image.Image):
            return image_processing.to_rgb(source)
        return image_processing.decode_image(Path(source).read_bytes(), self.max_pixels)

    def _stretches(self, source: Any) -> list[np.ndarray]:
        config = self.config.audio_processor
        if isinstance(source, np.ndarray):
            samples = audio_processing.prepare_waveform(source, config.sampling_rate, MAX_SECONDS, config)
        else:
            samples = audio_processing.decode_audio(Path(source).read_bytes(), MAX_SECONDS, config)
        return audio_processing.split_waveform(samples, config)

    def _span(self, frames: int) -> int:
        """Embeds of a span of so many encoder frames: pooled by two, framed by begin and end."""
        pooled = frames // 2 if self.config.audio.avg_pool else frames
        return pooled + 2 * int(self.config.audio.add_audio_bos_eos_token)


def listed(value: Any) -> list[Any]:
    """A medium may be absent, one or several."""
    if value is None or (isinstance(value, str) and not value):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


@contextmanager
def _told(turn: int, kind: str, source: Any) -> Iterator[None]:
    """Errors say which medium it was."""
    try:
        yield
    except (InvalidMedia, OSError) as error:
        file = f"{source}: " if isinstance(source, str | Path) else ""
        raise InvalidMedia(f"conversations[{turn}].content.{kind}: {file}{error}") from error


def _shape(*sizes: int) -> torch.Tensor:
    """Only the shape of embeds matters to the layout of a prompt."""
    return torch.empty(*sizes, 1)
