"""Messages and the layouts of their media -> one prompt.

In a turn: each picture and a newline; each recording as `Audio k: `, its spans and a newline
(k counts within the turn); then the text. A picture is its overview slice and, when it was cut,
the rows of its grid. Every placeholder position is a `MediaSpan`; positions are counted while the
prompt is laid out, never searched for, so nothing that a user writes can shift them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ContextOverflow, InvalidRequest
from ..types import AudioEmbeds, ImageEmbeds, MediaEmbeds, MediaSpan, Message, Prompt, PromptUsage
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class _Placeholder:
    media: int
    offset: int
    length: int


_Piece = str | int | _Placeholder
"""Text as a user may write it, a special token's id, or a place for embeds."""


def build_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    media: Sequence[MediaEmbeds],
    *,
    add_generation_prompt: bool = True,
    max_tokens: int | None = None,
) -> Prompt:
    """Lays out a conversation. Raises InvalidRequest for what no prompt can be made from, and
    ContextOverflow as soon as it is longer than `max_tokens`."""
    if not messages:
        raise InvalidRequest("at least one message is needed", "messages")
    # The template sees a mark instead of each content: what stands there is laid out below, and
    # whatever a user wrote can't be taken for a part of the template.
    for message in messages:
        if any("\ud800" <= c <= "\udfff" for c in message.text):
            raise InvalidRequest("a message holds half of a surrogate pair, which is no text", "messages")
    marks = [f"\u2063{secrets.token_hex(8)}\u2063" for _ in messages]
    rendered = tokenizer.render_chat(
        [{"role": m.role, "content": mark} for m, mark in zip(messages, marks, strict=True)],
        add_generation_prompt=add_generation_prompt,
    )
    ids: list[int] = []
    spans: list[MediaSpan] = []
    at = 0
    for message, mark in zip(messages, marks, strict=True):
        found = rendered.find(mark, at)
        if found < 0:
            raise InvalidRequest(f"the model's chat template has no place for this {message.role} message", "messages")
        ids += tokenizer.encode(rendered[at:found], allow_special=True)
        at = found + len(mark)
        if max_tokens is not None and len(ids) > max_tokens:
            raise ContextOverflow(
                f"the model's context is {max_tokens} tokens; the messages are longer. Shorten them.", "messages"
            )
        for piece in _merge_text(_content(tokenizer, message, media)):
            if isinstance(piece, str):
                ids += tokenizer.encode(piece, allow_special=False)
            elif isinstance(piece, int):
                ids.append(piece)
            else:
                spans.append(MediaSpan(len(ids), piece.length, piece.media, piece.offset, media[piece.media].key))
                ids += [tokenizer.special("unk")] * piece.length
    ids += tokenizer.encode(rendered[at:], allow_special=True)
    return Prompt(ids, tuple(spans))


def prompt_usage(prompt: Prompt, media: Sequence[MediaEmbeds]) -> PromptUsage:
    image = sum(span.length for span in prompt.spans if isinstance(media[span.media], ImageEmbeds))
    audio = sum(span.length for span in prompt.spans if isinstance(media[span.media], AudioEmbeds))
    return PromptUsage(len(prompt.token_ids), image, audio)


def _content(tokenizer: Tokenizer, message: Message, media: Sequence[MediaEmbeds]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for i in message.images:
        image = media[i]
        assert isinstance(image, ImageEmbeds)
        pieces += [*_image(tokenizer, i, image), "\n"]
    for number, i in enumerate(message.audios, start=1):
        audio = media[i]
        assert isinstance(audio, AudioEmbeds)
        pieces += [f"Audio {number}: ", *_audio(tokenizer, i, audio), "\n"]
    return [*pieces, message.text]


def _image(tokenizer: Tokenizer, media: int, image: ImageEmbeds) -> list[_Piece]:
    length = image.embeds.shape[1]

    def one_slice(number: int) -> list[_Piece]:
        place = _Placeholder(media, number * length, length)
        return [tokenizer.special("image_start"), place, tokenizer.special("image_end")]

    pieces = one_slice(0)
    if image.grid is None:
        return pieces
    columns, rows = image.grid
    pieces.append(tokenizer.special("slice_start"))
    for row in range(rows):
        if row:
            pieces.append("\n")
        for column in range(columns):
            pieces += one_slice(1 + row * columns + column)
    return [*pieces, tokenizer.special("slice_end")]


def _audio(tokenizer: Tokenizer, media: int, audio: AudioEmbeds) -> list[_Piece]:
    pieces: list[_Piece] = []
    offset = 0
    for span in audio.spans:
        place = _Placeholder(media, offset, span)
        pieces += [tokenizer.special("audio_start"), place, tokenizer.special("audio_end")]
        offset += span
    return pieces


def _merge_text(pieces: list[_Piece]) -> list[_Piece]:
    """Joins neighbouring texts: they are one text to the tokenizer."""
    merged: list[_Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return [piece for piece in merged if piece != ""]
