from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ModelConfig
from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.errors import MegrezError
from pipeline.model.attention import (
    FlashAttention,
    Packing,
    PagedBatch,
    TorchAttention,
    make_attention,
    write_cache,
)
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import PatchedSlice, VisionModel
from pipeline.model.weights import load_stage
from tests.pipeline.helpers import drain, greedy, text_prompt

from . import flash_stand_in

CPU = torch.device("cpu")


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlashAttention]:
    monkeypatch.setitem(sys.modules, "flash_attn", flash_stand_in.module())
    flash_stand_in.calls.clear()
    return FlashAttention()


def naive(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """q [n, H, d], k, v [m, KV, d], visible [n, m] -> [n, H, d], float64, one query at a time."""
    group = q.shape[1] // k.shape[1]
    out = np.zeros_like(q)
    for i in range(len(q)):
        for head in range(q.shape[1]):
            scores = k[visible[i], head // group] @ q[i, head] / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            out[i, head] = (weights / weights.sum()) @ v[visible[i], head // group]
    return out


@st.composite
def paged_cases(draw: st.DrawFn, block_sizes: tuple[int, ...] = (1, 3, 16)) -> tuple[int, int, list[tuple[int, int]]]:
    """(seed, block size, [(new tokens, tokens before them)])."""
    sequences = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=4))
    if draw(st.booleans()):  # a pure decode step
        sequences = [(1, before) for _, before in sequences]
    return draw(st.integers(0, 2**31)), draw(st.sampled_from(block_sizes)), sequences


def paged_inputs(
    seed: int, block_size: int, sequences: list[tuple[int, int]], dtype: torch.dtype, heads: int = 4, kv: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, PagedBatch, list[tuple[torch.Tensor, torch.Tensor]]]:
    """q, caches full of garbage, their batch, and each sequence's keys and values in order."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng).to(dtype)

    needed = [-(-(new + before) // block_size) for new, before in sequences]
    numbers = torch.randperm(sum(needed) + 2, generator=rng).tolist()  # two blocks belong to nobody
    k_cache, v_cache = (normal(len(numbers), block_size, kv, 8) for _ in range(2))
    tables, slots, contents = [], [], []
    for (new, before), count in zip(sequences, needed, strict=True):
        table = [numbers.pop() for _ in range(count)]
        keys, values = normal(new + before, kv, 8), normal(new + before, kv, 8)
        slot = torch.tensor([table[i // block_size] * block_size + i % block_size for i in range(new + before)])
        write_cache(keys, values, k_cache, v_cache, slot)
        tables.append(table)
        slots += slot[before:].tolist()
        contents.append((keys, values))
    widest = max(needed)
    batch = PagedBatch(
        query_lens=tuple(new for new, _ in sequences),
        context_lens=tuple(new + before for new, before in sequences),
        block_tables=torch.tensor([t + [0] * (widest - len(t)) for t in tables], dtype=torch.int32),
        slot_mapping=torch.tensor(slots),
    )
    return normal(sum(batch.query_lens), heads, 8), k_cache, v_cache, batch, contents


class TestTorch:
    @given(paged_cases())
    def test_paged_equals_the_naive_reference(self, case: tuple[int, int, list[tuple[int, int]]]) -> None:
        q, k_cache, v_cache, batch, contents = paged_inputs(*case, torch.float32)
        out = TorchAttention().paged(q, k_cache, v_cache, batch)
        start = 0
        for (keys, values), new in zip(contents, batch.query_lens, strict=True):
            visible = np.tril(np.ones((new, len(keys)), dtype=bool), len(keys) - new)
            query = q[start : start + new].double().numpy()
            wanted = naive(query, keys.double().numpy(), values.double().numpy(), visible)
            np.testing.assert_allclose(out[start : start + new].numpy(), wanted, rtol=1e-4, atol=1e-5)
            start += new

    @given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 2**31))
    def test_varlen_equals_the_naive_reference(self, lengths: list[int], seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(sum(lengths), 3, 8, generator=rng) for _ in range(3))
        out = TorchAttention().varlen(q, k, v, Packing(tuple(lengths)))
        start = 0
        for n in lengths:
            part = slice(start, start + n)
            a, b, c = (x[part].double().numpy() for x in (q, k, v))
            np.testing.assert_allclose(out[part].numpy(), naive(a, b, c, np.ones((n, n), bool)), rtol=1e-4, atol=1e-5)
            start += n


class TestFlash:
    @given(paged_cases(block_sizes=(256,)))
    def test_paged_equals_torch(self, flash: FlashAttention, case: tuple[int, int, list[tuple[int, int]]]) -> None:
        q, k_cache, v_cache, batch, _ = paged_inputs(*case, torch.bfloat16)
        wanted = TorchAttention().paged(q.float(), k_cache.float(), v_cache.float(), batch)
        torch.testing.assert_close(flash.paged(q, k_cache, v_cache, batch).float(), wanted, rtol=2e-2, atol=1e-2)

    def test_contexts_longer_than_a_page(self, flash: FlashAttention) -> None:
        for sequences in ([(1, 300), (1, 5)], [(9, 511), (260, 0), (1, 256)]):
            q, k_cache, v_cache, batch, _ = paged_inputs(0, 256, sequences, torch.bfloat16)
            wanted = TorchAttention().paged(q.float(), k_cache.float(), v_cache.float(), batch)
            torch.testing.assert_close(flash.paged(q, k_cache, v_cache, batch).float(), wanted, rtol=2e-2, atol=1e-2)
        assert flash_stand_in.calls == {"kvcache": 1, "paged varlen": 1}

    def test_varlen_equals_torch(self, flash: FlashAttention) -> None:
        packing = Packing((5, 1, 9, 9))
        q, k, v = (torch.randn(24, 4, 8).to(torch.bfloat16) for _ in range(3))
        wanted = TorchAttention().varlen(q.float(), k.float(), v.float(), packing)
        torch.testing.assert_close(flash.varlen(q, k, v, packing).float(), wanted, rtol=2e-2, atol=1e-2)

    def test_the_whole_decoder(self, flash: FlashAttention, golden_path: Path) -> None:
        """Chunked prefill, mixed steps and pure decodes on the stand-in, as on the reference."""
        prompts = [text_prompt(40, seed=1), text_prompt(7, seed=2), text_prompt(300, seed=3)]
        engines = []
        for kernel in (flash, TorchAttention()):
            config = ModelConfig.from_pretrained(golden_path).decoder
            model = load_stage(
                lambda c=config, a=kernel: DecoderModel(c, a),  # type: ignore[misc]
                golden_path,
                dtype=torch.bfloat16,
                device=CPU,
            )
            engine = Engine(model, EngineConfig(kv_cache=CacheBudget(8), block_size=256, max_batch_tokens=64), [])
            engines.append(engine)
        logits = [engine.runner for engine in engines]
        assert logits[0].cache.dtype == torch.bfloat16
        flash_logits, torch_logits = [], []
        for engine, kept in zip(engines, (flash_logits, torch_logits), strict=True):
            original = engine.runner.run
            engine.runner.run = lambda chunks, run=original, kept=kept: kept.append(run(chunks)) or kept[-1]  # type: ignore
            for prompt in prompts:
                engine.add(prompt, [], greedy(6))
            drain(engine)
        # Until a rounding flips a greedy token both see the same inputs: compare the prompts' ends.
        for a, b in zip(flash_logits[:6], torch_logits[:6], strict=True):
            if len(a):
                assert (a - b).norm() / b.norm() < 3e-2
        assert flash_stand_in.calls["kvcache"] > 0
        assert flash_stand_in.calls["paged varlen"] > 0

    def test_the_whole_vision_encoder(self, flash: FlashAttention, golden_path: Path) -> None:
        config = ModelConfig.from_pretrained(golden_path).vision
        rng = torch.Generator().manual_seed(0)
        slices = [PatchedSlice(torch.rand(r * c, 588, generator=rng) * 2 - 1, r, c) for r, c in ((3, 5), (8, 2))]
        kind = torch.bfloat16
        outs = [
            load_stage(lambda k=k: VisionModel(config, k), golden_path, dtype=kind, device=CPU).encode(slices)  # type: ignore[misc]
            for k in (flash, TorchAttention())
        ]
        assert flash_stand_in.calls["varlen"] == config.num_hidden_layers
        for a, b in zip(*outs, strict=True):
            assert a.dtype == kind
            assert (a - b).float().norm() / b.float().norm() < 3e-2

    def test_the_whole_audio_encoder(self, flash: FlashAttention, golden_path: Path) -> None:
        config = ModelConfig.from_pretrained(golden_path).audio
        rng = torch.Generator().manual_seed(0)
        mels = [torch.randn(128, n, generator=rng) for n in (20, 8)]
        kind = torch.bfloat16
        outs = [
            load_stage(lambda k=k: AudioModel(config, k), golden_path, dtype=kind, device=CPU).encode(mels)  # type: ignore[misc]
            for k in (flash, TorchAttention())
        ]
        assert flash_stand_in.calls["varlen"] == config.n_layer
        for a, b in zip(*outs, strict=True):
            assert (a - b).float().norm() / b.float().norm() < 3e-2

    def test_the_stand_in_refuses_what_the_library_refuses(self, flash: FlashAttention) -> None:
        q, k_cache, v_cache, batch, _ = paged_inputs(0, 256, [(3, 2)], torch.float32)
        with pytest.raises(AssertionError, match="fp16 and bf16"):
            flash.paged(q, k_cache, v_cache, batch)
        q, k_cache, v_cache, batch, _ = paged_inputs(0, 16, [(3, 2)], torch.bfloat16)
        with pytest.raises(AssertionError, match="divisible by 256"):
            flash.paged(q, k_cache, v_cache, batch)
        q, k_cache, v_cache, batch, _ = paged_inputs(0, 256, [(3, 2)], torch.bfloat16)
        with pytest.raises(AssertionError, match="int32"):
            flash.paged(q, k_cache, v_cache, replace(batch, block_tables=batch.block_tables.long()))


class TestMaking:
    def test_auto_is_torch_on_the_cpu(self, flash: FlashAttention) -> None:
        assert isinstance(make_attention("auto", CPU, torch.bfloat16), TorchAttention)

    def test_auto_is_flash_on_cuda_in_half_precision(self, flash: FlashAttention) -> None:
        cuda = torch.device("cuda")
        assert isinstance(make_attention("auto", cuda, torch.bfloat16), FlashAttention)
        assert isinstance(make_attention("auto", cuda, torch.float32), TorchAttention)

    def test_flash_by_name(self, flash: FlashAttention) -> None:
        assert isinstance(make_attention("flash", CPU, torch.bfloat16), FlashAttention)
        with pytest.raises(MegrezError, match="bfloat16"):
            make_attention("flash", CPU, torch.float32)

    def test_flash_is_not_installed(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setitem(sys.modules, "flash_attn", None)
        with pytest.raises(MegrezError, match="pip install"):
            make_attention("flash", CPU, torch.bfloat16)
        assert isinstance(make_attention("auto", torch.device("cuda"), torch.bfloat16), TorchAttention)
        assert "flash-attn can't be imported" in caplog.text

    def test_an_unknown_name(self) -> None:
        with pytest.raises(MegrezError, match="choose auto, native, torch or flash"):
            make_attention("fast", CPU, torch.float32)

    def test_flash_needs_blocks_of_256(self, flash: FlashAttention, golden_decoder: DecoderModel) -> None:
        model = DecoderModel(golden_decoder.config, flash)
        with pytest.raises(MegrezError, match="multiple of 256"):
            Engine(model, EngineConfig(kv_cache=CacheBudget(4), block_size=16), [])
