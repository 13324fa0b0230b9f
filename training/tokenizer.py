"""Makes a word-level tokenizer with Megrez's special tokens and chat layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# Attribute of the tokenizer -> its string. Their order gives them the first ids.
SPECIAL_TOKENS = {
    "unk": "<|unk|>",
    "eos": "<|eos|>",
    "role_start": "<|role_start|>",
    "role_end": "<|role_end|>",
    "turn_end": "<|turn_end|>",
    "image_start": "<|image_start|>",
    "image_end": "<|image_end|>",
    "slice_start": "<|slice_start|>",
    "slice_end": "<|slice_end|>",
    "audio_start": "<|audio_start|>",
    "audio_end": "<|audio_end|>",
}

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|role_start|>system<|role_end|>You are Megrez-Omni.<|turn_end|>"
    "{% endif %}"
    "{% for message in messages %}"
    "<|role_start|>{{ message['role'] }}<|role_end|>{{ message['content'] }}<|turn_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|role_start|>assistant<|role_end|>{% endif %}"
)

ROLES = ("system", "user", "assistant")

_PIECES = "[A-Za-z]+|[^A-Za-z]"


def make_tokenizer(
    vocab_size: int, lines: Iterable[str], certain: Iterable[str] = (), spelled: Collection[str] = ()
) -> PreTrainedTokenizerFast:
    """Its vocabulary is the special tokens, all bytes, the `certain` words and characters, and the most frequent
    ones of the lines that are not among the `spelled`.

    Any other word is spelled, a letter a token, any other character by its bytes. So a word has one form
    wherever it stands, and what is read off a picture letter by letter is written letter by letter. The same
    text and size give the same tokenizer.
    """
    counts = Counter(piece for line in lines for piece in re.findall(_PIECES, line) if len(piece.encode()) > 1)
    frequent = sorted(set(counts) - set(spelled), key=lambda piece: (-counts[piece], piece))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = dict.fromkeys(
        [*SPECIAL_TOKENS.values(), *alphabet, *ROLES, *(_bytes(byte_level, p) for p in (*certain, *frequent))]
    )
    vocabulary = {name: number for number, name in enumerate([*names][:vocab_size])}
    # Without merges BPE knows a piece as a whole or by its bytes.
    core = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECES), "isolated"), byte_level])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL_TOKENS.values()))
    special = {name: text for name, text in SPECIAL_TOKENS.items() if name not in ("unk", "eos")}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=SPECIAL_TOKENS["unk"],
        eos_token=SPECIAL_TOKENS["eos"],
        pad_token=SPECIAL_TOKENS["eos"],
        extra_special_tokens={f"{name}_token": text for name, text in special.items()},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _bytes(byte_level: pre_tokenizers.ByteLevel, piece: str) -> str:
    """A piece as byte-level vocabularies spell it."""
    return "".join(part for part, _ in byte_level.pre_tokenize_str(piece))
