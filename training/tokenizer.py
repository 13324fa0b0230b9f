"""Trains a byte-level BPE tokenizer with Megrez's special tokens and chat layout."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
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
    "<|role_start|>system<|role_end|>You are Megrez-Omni, a helpful assistant that sees, hears and reads.<|turn_end|>"
    "{% endif %}"
    "{% for message in messages %}"
    "<|role_start|>{{ message['role'] }}<|role_end|>{{ message['content'] }}<|turn_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|role_start|>assistant<|role_end|>{% endif %}"
)


def train_tokenizer(vocab_size: int, lines: Iterable[str]) -> PreTrainedTokenizerFast:
    """The same text and size give the same tokenizer. Digits and Chinese characters are tokens of their
    own: what is read off a picture or heard comes out character by character."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex("[\u4e00-\u9fff]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(lines, trainer)
    names = {name: text for name, text in SPECIAL_TOKENS.items() if name not in ("unk", "eos")}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=SPECIAL_TOKENS["unk"],
        eos_token=SPECIAL_TOKENS["eos"],
        pad_token=SPECIAL_TOKENS["eos"],
        extra_special_tokens={f"{name}_token": text for name, text in names.items()},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
