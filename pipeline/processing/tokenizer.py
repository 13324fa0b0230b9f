"""Text <-> token ids, with the checkpoint's own vocabulary, special tokens and chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer as Core
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

from ..errors import CheckpointError, InvalidRequest

# How the layout's special tokens may be called as attributes of a released tokenizer, and the
# strings to look for in its vocabulary where it has no such attribute.
_NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "image_start": (("image_start", "im_start", "img_start"), ("<|image_start|>", "<|im_start|>", "<image>")),
    "image_end": (("image_end", "im_end", "img_end"), ("<|image_end|>", "<|im_end|>", "</image>")),
    "slice_start": (("slice_start",), ("<|slice_start|>", "<slice>")),
    "slice_end": (("slice_end",), ("<|slice_end|>", "</slice>")),
    "audio_start": (("audio_start",), ("<|audio_start|>", "<audio>")),
    "audio_end": (("audio_end",), ("<|audio_end|>", "</audio>")),
    "unk": (("unk",), ("<|unk|>", "<unk>")),
    "turn_end": (("turn_end",), ("<|turn_end|>",)),
    "eos": (("eos",), ("<|eos|>",)),
}


class Tokenizer:
    """Reads `tokenizer.json` and its companions from a checkpoint directory; runs no code from it."""

    def __init__(self, path: str | Path) -> None:
        root = Path(path)
        if not (root / "tokenizer.json").exists():
            raise CheckpointError(f"checkpoint {root}: tokenizer.json is missing")
        try:
            self._hf = PreTrainedTokenizerFast.from_pretrained(root)
        except Exception as error:
            raise CheckpointError(f"checkpoint {root}: the tokenizer can't be loaded: {error}") from error
        # Two that are never changed again: transformers' own call sets a flag on the one it shares
        # between threads, and then encodes by it.
        self._core = _fixed(self._hf, as_text=False)
        self._literal = _fixed(self._hf, as_text=True)
        self._special = {role: self._resolve(role, root) for role in _NAMES}
        self._byte_level = "ByteLevel" in json.dumps(json.loads(self._core.to_str()).get("decoder"))
        self.vocab_size = len(self._hf)

    def special(self, role: str) -> int:
        """Id of a special token by its part in the prompt: 'image_start', 'unk', 'turn_end' …"""
        return self._special[role]

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """Token ids of a text. Where special tokens are not allowed (what a user wrote), their
        strings are ordinary text: nobody can end a turn or fake a picture by writing its token."""
        core = self._core if allow_special else self._literal
        ids: list[int] = core.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: list[int]) -> str:
        return str(self._core.decode(token_ids, skip_special_tokens=True))

    def stream(self) -> TextStream:
        return TextStream(self)

    def render_chat(self, turns: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Applies the chat template; its default system prompt is kept."""
        if self._hf.chat_template is None:
            return _plain_template(turns, add_generation_prompt)
        try:
            rendered: Any = self._hf.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:  # a template's own complaint, about the order of roles say
            raise InvalidRequest(f"the model's chat template refuses these messages: {error}", "messages") from None
        return str(rendered)

    def token_text(self, token_id: int) -> tuple[str, bytes]:
        """A token alone: its text, and its bytes (which may be part of a character)."""
        piece = self._core.id_to_token(token_id)
        if piece is None:  # a row of the vocabulary that the tokenizer doesn't use
            return "", b""
        if self._byte_level and all(c in _BYTE_OF for c in piece):
            raw = bytes(_BYTE_OF[c] for c in piece)
        elif len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            raw = bytes([int(piece[3:5], 16)])
        else:
            raw = piece.replace("\u2581", " ").encode()
        return raw.decode("utf-8", errors="replace"), raw

    def _resolve(self, role: str, root: Path) -> int:
        attributes, strings = _NAMES[role]
        keys = [f"{name}{suffix}" for name in attributes for suffix in ("_token", "")]
        tried = [getattr(self._hf, key, None) or self._hf.init_kwargs.get(key) for key in keys]
        vocabulary = self._hf.get_vocab()
        for text in [t for t in tried if isinstance(t, str)] + list(strings):
            if text in vocabulary:
                return int(vocabulary[text])
        raise CheckpointError(f"checkpoint {root}: the tokenizer has no token for {role} (looked for {strings})")


def _fixed(tokenizer: PreTrainedTokenizerFast, *, as_text: bool) -> Core:
    """A tokenizer of its own that reads special tokens' names as tokens, or as the text they are."""
    core = Core.from_str(tokenizer.backend_tokenizer.to_str())
    core.no_padding()
    core.no_truncation()
    core.encode_special_tokens = as_text
    return core


class TextStream:
    """Token ids in, text out, never half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        self._pending.append(token_id)
        try:
            text = self._stream.step(self._tokenizer._core, token_id)
        except Exception:  # the decoder refuses some runs of invalid bytes; start afresh behind them
            text = self._tokenizer.decode(self._pending)
            self._stream = DecodeStream(skip_special_tokens=True)
        if text is None:
            return ""
        self._pending.clear()
        return text

    def flush(self) -> str:
        """What is left at the end: bytes that never became a character, as U+FFFD."""
        text = self._tokenizer.decode(self._pending) if self._pending else ""
        self._pending.clear()
        return text


def _plain_template(turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """Megrez's layout, for a checkpoint that brings no template of its own."""
    text = "".join(f"<|role_start|>{t['role']}<|role_end|>{t['content']}<|turn_end|>" for t in turns)
    return text + ("<|role_start|>assistant<|role_end|>" if add_generation_prompt else "")


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level BPE (GPT-2): printable bytes stand for themselves, the others
    for the characters from U+0100 on, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


_BYTE_OF = _byte_alphabet()
