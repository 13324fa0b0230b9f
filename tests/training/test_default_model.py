"""The default checkpoint before training: small, seeded, greedy."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipeline.config import ModelConfig
from pipeline.model.attention import TorchAttention
from pipeline.omni import Omni
from pipeline.processing.tokenizer import Tokenizer
from training.default_model import CONFIG, PREPROCESSOR, VOCAB_SIZE, write_initial
from training.model import OmniForTraining

LIMIT = 16_000_000  # bytes; it lives in the repository


def test_its_size_is_limited(mini_initial: Path) -> None:
    with torch.device("meta"):
        model = OmniForTraining.from_config(ModelConfig.from_dicts(CONFIG, PREPROCESSOR), TorchAttention())
    weights = sum(2 * tensor.numel() for tensor in model.state_dict().values())
    assert weights < (mini_initial / "model.safetensors").stat().st_size < 1.01 * weights
    assert sum(file.stat().st_size for file in mini_initial.iterdir()) < LIMIT


def test_the_seed_decides_over_the_weights_alone(mini_initial: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_initial(tmp_path / str(seed), seed)
    names = {file.name for file in mini_initial.iterdir()}
    for seed, differing in ((0, set()), (1, {"model.safetensors"})):
        made = tmp_path / str(seed)
        assert {file.name for file in made.iterdir()} == names
        assert {name for name in names if (made / name).read_bytes() != (mini_initial / name).read_bytes()} == differing


def test_weights_are_stored_once_in_half_precision(mini_initial: Path) -> None:
    tensors = load_file(mini_initial / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert "llm.lm_head.weight" not in tensors
    assert tensors["llm.model.embed_tokens.weight"].shape == (VOCAB_SIZE, CONFIG["hidden_size"])


def test_it_answers_greedily_and_ends_with_the_turn(mini_initial: Path) -> None:
    tokenizer, config = Tokenizer(mini_initial), ModelConfig.from_pretrained(mini_initial)
    assert config.generation.temperature == 0
    assert config.generation.repetition_penalty == 1
    assert set(config.generation.eos_token_ids) == {tokenizer.special("turn_end"), tokenizer.special("eos")}
    assert json.loads((mini_initial / "generation_config.json").read_text())["do_sample"] is False
    omni, prompt = Omni.from_pretrained(mini_initial), tokenizer.encode("Hello", allow_special=False)
    said = [omni.generate([prompt], max_new_tokens=8, temperature=0) for _ in range(2)]
    assert said[0] == said[1]


def test_the_tokenizer_has_about_as_many_tokens_as_embeddings(mini_initial: Path) -> None:
    tokenizer = Tokenizer(mini_initial)
    assert 0.95 * VOCAB_SIZE < tokenizer.vocab_size <= VOCAB_SIZE
    for text in ("There is a red circle.", "图中有一个红色的圆。"):
        ids = tokenizer.encode(text, allow_special=False)
        assert tokenizer.decode(ids) == text
        assert len(ids) <= len(text)
