"""All stages in one process: the Python API, and the reference that the served system must equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image

from .config import ModelConfig
from .encoder import AudioStage, VisionStage
from .engine.engine import EngineConfig
from .errors import GenerationFailed, InvalidRequest
from .generator import Answer, Generator
from .processing.image import check_size, to_rgb
from .types import (
    AudioEmbeds,
    Delta,
    ImageEmbeds,
    MediaEmbeds,
    MediaSpan,
    Message,
    Prompt,
    Role,
    SamplingParams,
    WeightStorage,
)

Segment = Sequence[int] | torch.Tensor
"""A part of a prompt: token ids, or embeds [n, D]."""

ImageSource = str | Path | bytes | Image.Image
AudioSource = str | Path | bytes | np.ndarray


class Omni:
    """Megrez-Omni on one device.

    >>> omni = Omni.from_pretrained("checkpoints/megrez-omni-mini")
    >>> omni.chat([{"role": "user", "content": {"text": "What is this?", "image": "cat.jpg"}}])
    """

    def __init__(self, config: ModelConfig, vision: VisionStage, audio: AudioStage, generator: Generator) -> None:
        self.config, self._vision, self._audio, self._generator = config, vision, audio, generator
        self._mailboxes: dict[Answer, deque[Delta]] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        attention: str = "auto",
        weights: WeightStorage = "auto",
        engine: EngineConfig | None = None,
    ) -> Omni:
        """`path`: a directory in the released layout; `weights`: how the decoder keeps its own. On a CPU it computes on
        as many threads as torch does. Raises CheckpointError."""
        kind: dict[str, Any] = {"device": device, "dtype": dtype, "attention": attention}
        generator = Generator.from_pretrained(path, weights=weights, engine=engine, **kind)
        threads = torch.get_num_threads()
        generator.engine.runner.model.set_threads(threads)
        torch.set_num_threads(threads)  # for the encoders, which don't run at the same time
        return cls(
            ModelConfig.from_pretrained(path),
            VisionStage.from_pretrained(path, **kind),
            AudioStage.from_pretrained(path, **kind),
            generator,
        )

    def encode_image(self, image: ImageSource) -> torch.Tensor:
        """A picture (path, bytes or PIL) -> embeds [slices, query_num, D]."""
        return self._image(image).embeds

    def encode_audio(self, audio: AudioSource) -> torch.Tensor:
        """A recording (path, bytes, or mono float32 [n] at 16 kHz) -> embeds [span, D]."""
        return self._sound(audio).embeds

    def logits(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Logits at every position of a prompt, float32 [T, vocab]."""
        return self._generator.engine.logits(*self._prompt(segments))

    def generate(self, segments: Sequence[Segment], *, max_new_tokens: int, **sampling: Any) -> list[int]:
        """Token ids after a prompt; `sampling` are SamplingParams' fields. temperature=0 is greedy."""
        prompt, rows = self._prompt(segments)
        media = [AudioEmbeds(m, (len(m),)) for m in rows]  # embeds are embeds to the engine
        params = SamplingParams(max_tokens=max_new_tokens, **sampling)
        return [token for delta in self._run(prompt, media, params) for token in delta.token_ids]

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[False] = False, **sampling: Any
    ) -> str: ...

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[True], **sampling: Any
    ) -> Iterator[str]: ...

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: bool = False, **sampling: Any
    ) -> str | Iterator[str]:
        """The answer to a conversation in the authors' format, whole or in pieces.

        A message is {"role": …, "content": {"text": …, "image": …, "audio": …}}; the content may be
        a plain string, and image and audio may be lists. `sampling` are SamplingParams' fields over
        the checkpoint's defaults. Raises InvalidRequest and its kin.
        """
        turns, media = self._messages(messages)
        base = self.config.generation
        defaults = SamplingParams(
            temperature=base.temperature,
            top_p=base.top_p,
            top_k=base.top_k,
            repetition_penalty=base.repetition_penalty,
        )
        pieces = self._answer(turns, media, replace(defaults, **sampling))
        return pieces if stream else "".join(pieces)

    def _answer(self, turns: list[Message], media: list[MediaEmbeds], params: SamplingParams) -> Iterator[str]:
        for delta in self._run(self._generator.prompt(turns, media), media, params):
            if delta.text:
                yield delta.text

    def _run(self, prompt: Prompt, media: Sequence[MediaEmbeds], params: SamplingParams) -> Iterator[Delta]:
        """One answer's deltas. Several may be read in turns: each step's pieces go to their owners."""
        generator = self._generator
        answers = generator.add(prompt, media, params)
        mailbox = self._mailboxes[answers[0]] = deque()
        try:
            while mailbox or answers[0].finish_reason is None:
                while mailbox:
                    delta = mailbox.popleft()
                    if delta.error:
                        raise GenerationFailed(delta.error)
                    yield delta
                if answers[0].finish_reason is None:
                    for owner, delta in generator.step():
                        self._mailboxes[owner].append(delta)
        finally:
            generator.abort(answers)
            del self._mailboxes[answers[0]]

    def _messages(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[Message], list[MediaEmbeds]]:
        turns: list[Message] = []
        media: list[MediaEmbeds] = []
        for number, message in enumerate(messages):
            content = message.get("content")
            content = {"text": content} if isinstance(content, str) else content
            if not isinstance(content, Mapping):
                raise InvalidRequest(f"message {number}: content must be a string or a dict", "messages")
            content = dict(content)
            images, audios = _listed(content.pop("image", None)), _listed(content.pop("audio", None))
            text = content.pop("text", "") or ""
            if not isinstance(text, str):
                raise InvalidRequest(f"message {number}: text must be a string", "messages")
            if content:
                raise InvalidRequest(f"message {number}: unknown content {', '.join(content)}", "messages")
            role: Role = message.get("role", "")
            if role not in ("system", "user", "assistant"):
                raise InvalidRequest(f"message {number}: unknown role {role!r}", "messages")
            first = len(media)
            media += [self._image(image) for image in images] + [self._sound(audio) for audio in audios]
            middle = first + len(images)
            turns.append(Message(role, text, tuple(range(first, middle)), tuple(range(middle, len(media)))))
        return turns, media

    def _image(self, image: ImageSource) -> ImageEmbeds:
        stage = self._vision
        if isinstance(image, Image.Image):
            check_size(*image.size, stage.max_pixels)
            prepared = stage.prepare_image(to_rgb(image))
        else:
            prepared = stage.prepare(_bytes(image))
        return stage.assemble(prepared, stage.encode(prepared.units))

    def _sound(self, audio: AudioSource) -> AudioEmbeds:
        stage = self._audio
        prepared = stage.prepare_waveform(audio) if isinstance(audio, np.ndarray) else stage.prepare(_bytes(audio))
        return stage.assemble(prepared, stage.encode(prepared.units))

    def _prompt(self, segments: Sequence[Segment]) -> tuple[Prompt, list[torch.Tensor]]:
        ids: list[int] = []
        spans: list[MediaSpan] = []
        media: list[torch.Tensor] = []
        for segment in segments:
            if isinstance(segment, torch.Tensor) and segment.is_floating_point():
                rows = segment.flatten(0, -2)
                if rows.shape[1] != self.config.decoder.hidden_size:
                    width = self.config.decoder.hidden_size
                    raise InvalidRequest(f"embeds must be [n, {width}], not {list(segment.shape)}", "segments")
                spans.append(MediaSpan(len(ids), len(rows), len(media), 0))
                media.append(rows)
                ids += [self._generator.tokenizer.special("unk")] * len(rows)
            else:
                ids += [int(i) for i in segment]
                if any(not 0 <= i < self.config.decoder.vocab_size for i in ids[-len(segment) :]):
                    raise InvalidRequest(f"token ids must be below {self.config.decoder.vocab_size}", "segments")
        return Prompt(ids, tuple(spans)), media


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _bytes(source: str | Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()
