from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import DecoderConfig, ModelConfig
from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.errors import MegrezError
from pipeline.model import native_decoder
from pipeline.model.attention import TorchAttention
from pipeline.model.decoder import DecoderModel
from pipeline.model.native_decoder import NativeDecoder, misfit
from pipeline.model.weights import load_stage
from pipeline.native.packing import Packed, pack
from pipeline.types import WeightStorage
from tests.golden import reference, relative_error
from tests.pipeline.helpers import drain, golden_prompt, greedy, tokens

from .texts import Texts

CPU = torch.device("cpu")


def load(path: Path, dtype: torch.dtype | None = torch.float32) -> DecoderModel:
    config = ModelConfig.from_pretrained(path).decoder
    return load_stage(lambda: DecoderModel(config, TorchAttention()), path, dtype=dtype, device=CPU)


@pytest.fixture(scope="module")
def golden(golden_decoder: DecoderModel) -> NativeDecoder:
    return NativeDecoder(copy.deepcopy(golden_decoder))


@pytest.fixture(scope="module")
def mini_decoder(mini_path: Path) -> DecoderModel:
    return load(mini_path)


@pytest.fixture(scope="module")
def mini(mini_path: Path) -> NativeDecoder:
    return NativeDecoder(load(mini_path, dtype=None))


LENGTHS = [150, 12, 71, 33]


def check_equal(native: NativeDecoder, model: DecoderModel, bound: float) -> None:
    for block_size in (16, 64):
        ours, theirs = (Texts(m, LENGTHS, block_size).mixed() for m in (native, model))
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == torch.float32
            assert relative_error(a, b.numpy()) < bound
            assert relative_error(native.logits(a), model.logits(b).numpy()) < bound


class TestAgainstTorch:
    def test_the_golden_checkpoint(self, golden: NativeDecoder, golden_decoder: DecoderModel) -> None:
        check_equal(golden, golden_decoder, 2e-5)

    def test_the_default_checkpoint(self, mini: NativeDecoder, mini_decoder: DecoderModel) -> None:
        check_equal(mini, mini_decoder, 2e-5)

    @pytest.mark.parametrize("length", [1, 2, 37, 300])
    def test_whole_prompts(self, golden: NativeDecoder, golden_decoder: DecoderModel, length: int) -> None:
        a, b = (Texts(m, [length], 32).all(length) for m in (golden, golden_decoder))
        assert relative_error(a, b.numpy()) < 2e-5

    def test_the_golden_reference(self, golden: NativeDecoder) -> None:
        prompt, media = golden_prompt()
        engine = Engine(golden, EngineConfig(kv_cache=CacheBudget(12)), [])
        assert engine.blocks.block_size == 64
        assert relative_error(engine.logits(prompt, media)[-8:], reference()["decoder/prompt_logits_last8"]) < 1e-4
        engine.add(prompt, media, greedy(48))
        assert tokens(drain(engine)[0]) == reference()["decoder/greedy48"].tolist()

    @pytest.mark.parametrize(
        ("heads", "kv_heads", "size", "intermediate", "vocab", "tied"),
        [(5, 1, 16, 48, 50, False), (3, 3, 32, 16, 33, True), (4, 2, 80, 112, 64, False), (26, 1, 16, 64, 19, False)],
    )
    def test_other_shapes(
        self, heads: int, kv_heads: int, size: int, intermediate: int, vocab: int, tied: bool
    ) -> None:
        config = DecoderConfig(heads * size, intermediate, 2, heads, kv_heads, vocab, 64, tie_word_embeddings=tied)
        model = DecoderModel(config, TorchAttention()).requires_grad_(False)
        rng = torch.Generator().manual_seed(0)
        for p in model.parameters():
            p.normal_(generator=rng).mul_(p.shape[-1] ** -0.5 if p.dim() == 2 else 1)
        native = NativeDecoder(copy.deepcopy(model))
        a, b = (Texts(m, [40, 20], 16) for m in (native, model))
        for texts in (a, b):
            texts.step({0: 33, 1: 1})
            texts.step({0: 1, 1: 19})
        for number in range(2):
            ours, theirs = (torch.cat(texts.hidden[number]) for texts in (a, b))
            assert relative_error(ours, theirs.numpy()) < 1e-5
            assert relative_error(native.logits(ours), model.logits(theirs).numpy()) < 1e-5


class TestToTheLastBit:
    """What a token's hidden state doesn't depend on."""

    @pytest.fixture(params=["golden", "mini"])
    def native(self, request: pytest.FixtureRequest) -> NativeDecoder:
        model: NativeDecoder = request.getfixturevalue(request.param)
        return model

    @pytest.fixture
    def whole(self, native: NativeDecoder) -> Iterator[list[torch.Tensor]]:
        yield [Texts(native, LENGTHS).all(1000, number) for number in range(len(LENGTHS))]
        native.set_threads(1)

    @pytest.mark.parametrize("portion", [1, 7, 64])
    def test_portions(self, native: NativeDecoder, whole: list[torch.Tensor], portion: int) -> None:
        assert torch.equal(Texts(native, LENGTHS).all(portion), whole[0])

    def test_neighbours(self, native: NativeDecoder, whole: list[torch.Tensor]) -> None:
        for a, b in zip(Texts(native, LENGTHS).mixed(), whole, strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("threads", [2, 3])
    def test_threads(self, native: NativeDecoder, whole: list[torch.Tensor], threads: int) -> None:
        native.set_threads(threads)
        texts = Texts(native, LENGTHS)
        texts.step({0: 150, 1: 11, 2: 1})
        texts.step({1: 1, 2: 64})
        for number, done in enumerate((150, 12, 65)):
            assert torch.equal(torch.cat(texts.hidden[number]), whole[number][:done])
        logits = native.logits(whole[0][:3])
        native.set_threads(1)
        assert torch.equal(native.logits(whole[0][:3]), logits)

    def test_logits_of_neighbours(self, native: NativeDecoder, whole: list[torch.Tensor]) -> None:
        logits = native.logits(whole[0])
        assert logits.shape == (150, native.config.vocab_size)
        for rows in (slice(0, 1), slice(149, 150), slice(10, 13), slice(20, 28), slice(0, 0)):
            assert torch.equal(native.logits(whole[0][rows]), logits[rows])

    def test_a_neighbour_that_is_no_number(self, native: NativeDecoder, whole: list[torch.Tensor]) -> None:
        class Broken(Texts):
            def embeds(self, number: int, first: int, last: int) -> torch.Tensor:
                return super().embeds(number, first, last) * (float("nan") if number == 1 else 1)

        a, b, c, _ = Broken(native, LENGTHS).mixed()
        assert b.isnan().all()
        assert torch.equal(a, whole[0])
        assert torch.equal(c, whole[2])


class TestStorage:
    def error(self, model: NativeDecoder, other: DecoderModel | NativeDecoder) -> float:
        a, b = (Texts(m, [100]).all(100) for m in (model, other))
        return relative_error(model.logits(a), other.logits(b).numpy())

    def test_auto_loses_nothing(self, golden: NativeDecoder, mini: NativeDecoder, mini_path: Path) -> None:
        assert golden.storage == "float32"
        assert mini.storage == "bfloat16"
        assert NativeDecoder(load(mini_path)).storage == "bfloat16"  # weights that have become float32 since

    def test_one_weight_more_than_16_bits(self, mini_path: Path) -> None:
        model = load(mini_path)
        model.model.layers[3].mlp.up_proj.weight[7, 8] = 1 + 2**-20
        assert NativeDecoder(model).storage == "float32"

    def test_16_bits_equal_32(self, mini: NativeDecoder, mini_path: Path) -> None:
        full = NativeDecoder(load(mini_path, dtype=None), "float32")
        assert full.storage == "float32"
        a, b = (Texts(m, LENGTHS).mixed() for m in (mini, full))
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(mini.logits(x), full.logits(x))

    @pytest.mark.parametrize(("storage", "measured"), [("bfloat16", 0.0154), ("int8", 0.0610)])
    def test_rounded_weights(self, golden_decoder: DecoderModel, storage: WeightStorage, measured: float) -> None:
        model = NativeDecoder(copy.deepcopy(golden_decoder), storage)
        assert model.storage == storage
        assert measured / 2 < self.error(model, golden_decoder) < measured * 2

    def test_8_bits_of_the_default_checkpoint(self, mini: NativeDecoder, mini_path: Path) -> None:
        model = NativeDecoder(load(mini_path), "int8")
        assert 0.0560 / 2 < self.error(model, mini) < 0.0560 * 2  # twice what was measured
        wanted = Texts(model, LENGTHS).all(1000)
        assert torch.equal(Texts(model, LENGTHS).mixed()[0], wanted)

    def test_unknown(self, golden_decoder: DecoderModel) -> None:
        with pytest.raises(AssertionError, match="int4"):
            NativeDecoder(copy.deepcopy(golden_decoder), "int4")  # type: ignore[arg-type]


class TestMisfit:
    def test_sizes(self, golden_decoder: DecoderModel) -> None:
        config = golden_decoder.config
        assert misfit(config) is None
        assert misfit(replace(config, num_attention_heads=32)) == "its head size of 8 is not a multiple of 16"
        assert misfit(replace(config, intermediate_size=50)) == "its intermediate_size of 50 is not a multiple of 16"

    def test_nothing_is_taken(self, golden_decoder: DecoderModel) -> None:
        config = replace(golden_decoder.config, intermediate_size=50)
        model = DecoderModel(config, TorchAttention())
        with pytest.raises(MegrezError, match="can't compute this checkpoint: its intermediate_size of 50"):
            NativeDecoder(model)
        assert len(model.model.layers) == config.num_hidden_layers


class TestInterface:
    def test_embeds(self, mini: NativeDecoder, mini_decoder: DecoderModel) -> None:
        ids = torch.tensor([5, 2047, 0, 5])
        assert mini.embed(ids).dtype == torch.float32
        assert torch.equal(mini.embed(ids), mini_decoder.embed(ids))

    def test_embeds_are_left_as_they_are(self, golden: NativeDecoder) -> None:
        texts, given = Texts(golden, [5]), []
        embeds = texts.embeds(0, 0, 5)

        def compute(embeds: torch.Tensor, *where: Any) -> torch.Tensor:
            given.extend([embeds, embeds.clone()])
            return golden(embeds, *where)

        texts.embeds = lambda *span: embeds  # type: ignore[method-assign]
        texts.model = compute  # type: ignore[assignment]
        texts.step({0: 5})
        assert torch.equal(*given)

    def test_the_layers_are_never_all_held_twice(self, mini_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, alive = load(mini_path), []
        layers = [weakref.ref(layer) for layer in model.model.layers]

        def count(weights: np.ndarray, into: Packed) -> None:
            alive.append(sum(layer() is not None for layer in layers))
            pack(weights, into)

        monkeypatch.setattr(native_decoder, "pack", count)
        NativeDecoder(model)
        assert alive == [6] + [left for left in range(6, 0, -1) for _ in range(4)]
        assert len(model.model.layers) == 0

    def test_the_cache(self, golden: NativeDecoder) -> None:
        cache = golden.new_cache(5, 48)
        assert cache.keys.shape == (2, 5, 2, 3, 32, 16)
        assert cache.values.shape == (2, 5, 2, 2, 48, 16)
        assert cache.keys.nbytes + cache.values.nbytes == golden.cache_bytes(5 * 48)
        with pytest.raises(MegrezError, match="multiple of 16"):
            Engine(golden, EngineConfig(kv_cache=CacheBudget(4), block_size=24), [])

    def test_threads(self, golden_decoder: DecoderModel) -> None:
        model = NativeDecoder(copy.deepcopy(golden_decoder))
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            model.set_threads(3)
            assert torch.get_num_threads() == 1
            assert model._team.members == 3
            whole = Texts(model, [60]).all(60)
            model.set_threads(2)
            assert model._team.members == 2
            assert torch.equal(Texts(model, [60]).all(60), whole)
        finally:
            torch.set_num_threads(before)

    def test_block_sizes_take_turns(self, golden: NativeDecoder) -> None:
        texts = [Texts(golden, [90], size) for size in (16, 64, 32)]
        for _ in range(3):
            for text in texts:
                text.step({0: 30})
        for text in texts:
            np.testing.assert_allclose(torch.cat(text.hidden[0]), texts[0].all(90), rtol=1e-4, atol=1e-5)
