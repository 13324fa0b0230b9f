from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model.decoder import DecoderModel, rope_tables, rotate
from pipeline.types import Prompt
from tests.golden import META, reference, relative_error
from tests.pipeline.helpers import drain, golden_prompt, greedy, text_prompt, tokens


@pytest.fixture(scope="module")
def llama(golden_decoder: DecoderModel) -> LlamaForCausalLM:
    """transformers' Llama with the same weights: an independent reference for any prompt."""
    c = golden_decoder.config
    config = LlamaConfig(
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads,
        vocab_size=c.vocab_size,
        rms_norm_eps=c.rms_norm_eps,
        max_position_embeddings=c.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(golden_decoder.state_dict())
    return model


def test_golden_logits(golden_decoder: DecoderModel) -> None:
    prompt, media = golden_prompt()
    assert len(prompt.token_ids) == META["decoder"]["prompt_len"]
    engine = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(64)), [])
    logits = engine.logits(prompt, media)
    assert logits.shape == (533, 512)
    assert relative_error(logits[-8:], reference()["decoder/prompt_logits_last8"]) < 1e-4


def test_golden_greedy_tokens(golden_decoder: DecoderModel) -> None:
    prompt, media = golden_prompt()
    engine = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(64), max_batch_tokens=1024), [])
    engine.add(prompt, media, greedy(48))
    assert tokens(drain(engine)[0]) == reference()["decoder/greedy48"].tolist()


@pytest.mark.parametrize("length", [1, 2, 37, 300])
def test_logits_equal_transformers_llama(golden_decoder: DecoderModel, llama: LlamaForCausalLM, length: int) -> None:
    prompt = text_prompt(length, seed=length)
    engine = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(64), block_size=7), [])
    with torch.inference_mode():
        wanted = llama(torch.tensor([prompt.token_ids])).logits[0].numpy()
    assert relative_error(engine.logits(prompt, []), wanted) < 1e-4


def test_decoding_equals_prefilling(golden_decoder: DecoderModel) -> None:
    """The greedy tokens, appended to the prompt and computed at once, choose themselves again."""
    prompt = text_prompt(20, seed=5)
    engine = Engine(golden_decoder, EngineConfig(kv_cache=CacheBudget(16)), [])
    engine.add(prompt, [], greedy(20))
    out = tokens(drain(engine)[0])
    logits = engine.logits(Prompt(prompt.token_ids + out), [])
    assert logits[19:-1].argmax(-1).tolist() == out


def test_rotation_depends_on_the_distance_only(golden_decoder: DecoderModel) -> None:
    cos, sin = rope_tables(golden_decoder.config)
    assert cos.shape == (4096, 32)
    q, k = torch.randn(1, 1, 32), torch.randn(1, 1, 32)

    def score(a: int, b: int) -> float:
        return float((rotate(q, cos[a, None, None], sin[a, None, None]) * rotate(k, cos[b], sin[b])).sum())

    assert score(10, 3) == pytest.approx(score(1010, 1003), rel=1e-3, abs=1e-3)
    assert score(10, 3) != pytest.approx(score(10, 9), rel=1e-3)
    np.testing.assert_allclose(score(0, 0), float((q * k).sum()), rtol=1e-5)


def test_cache_shape(golden_decoder: DecoderModel) -> None:
    assert golden_decoder.new_cache(5, 7).shape == (2, 2, 5, 7, 2, 32)
