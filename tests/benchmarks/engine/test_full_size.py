"""Random weights of a small size, in both layouts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.engine import full_size
from pipeline import Omni
from pipeline.processing.tokenizer import Tokenizer
from tests.golden import DATA

SMALL = copy.deepcopy(full_size.CONFIG) | {
    "hidden_size": 256,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2500,
}
SMALL["vision_config"] |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL["audio_config"] |= {"n_state": 64, "n_head": 2, "n_layer": 2, "output_dim": 256}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("weights")
    full_size.write(folder / "released", folder / "huggingface", SMALL)
    return folder / "released", folder / "huggingface"


def test_it_can_be_served(written: tuple[Path, Path]) -> None:
    omni = Omni.from_pretrained(written[0])
    content = {"text": "hi", "image": DATA / "sample_image.jpg", "audio": DATA / "sample_audio.mp3"}
    assert omni.chat([{"role": "user", "content": content}], max_tokens=8)


def test_any_token_can_be_shown(written: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    found = Tokenizer(written[0])
    assert all(found.decode([number]) for number in range(2048, 2500))
    assert found.decode([500]) == tokenizer.decode([500])
    assert found.encode("3 + 4 is 7", allow_special=False) == tokenizer.encode("3 + 4 is 7", allow_special=False)


def test_both_layouts_are_one_model(written: tuple[Path, Path]) -> None:
    ids = [100, 7, 2400, 81]
    llama = AutoModelForCausalLM.from_pretrained(written[1], dtype=torch.float32)
    with torch.inference_mode():
        wanted = llama(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(Omni.from_pretrained(written[0]).logits([ids]), wanted, rtol=1e-3, atol=1e-4)
