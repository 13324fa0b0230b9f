"""CUDA graphs without CUDA: what a graph would run is run again, on the same static tensors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model import graphed_decoder
from pipeline.model.attention import FlashAttention, PagedBatch, TorchAttention
from pipeline.model.decoder import DecoderModel, KVCache
from pipeline.model.graphed_decoder import Fusion, GraphedDecoder
from pipeline.model.weights import load_stage
from tests.pipeline.helpers import drain, greedy, text_prompt

from . import flash_stand_in
from .recorder import Recorder

BLOCK = 256


@pytest.fixture
def model(golden_path: Path, monkeypatch: pytest.MonkeyPatch) -> DecoderModel:
    monkeypatch.setitem(sys.modules, "flash_attn", flash_stand_in.module())
    config = ModelConfig.from_pretrained(golden_path).decoder
    cpu = torch.device("cpu")
    return load_stage(lambda: DecoderModel(config, FlashAttention()), golden_path, dtype=torch.bfloat16, device=cpu)


def decodes(lengths: list[int], tables: list[list[int]]) -> PagedBatch:
    """Each sequence adds the token that makes it so long."""
    slots = [t[(n - 1) // BLOCK] * BLOCK + (n - 1) % BLOCK for n, t in zip(lengths, tables, strict=True)]
    return PagedBatch((1,) * len(lengths), tuple(lengths), torch.tensor(tables, dtype=torch.int32), torch.tensor(slots))


def made(model: DecoderModel) -> tuple[GraphedDecoder, Recorder, KVCache]:
    """Over a cache of 9 blocks full of made-up keys and values."""
    recorder = Recorder()
    graphed = GraphedDecoder(model, recorder, ladder=(1, 2, 4, 8))
    cache = graphed.new_cache(9, BLOCK)
    assert cache.shape[2] == 10, "one more for padding"
    graphed.warm_up(cache)
    cache.copy_(torch.randn(cache.shape, generator=torch.Generator().manual_seed(0)))
    return graphed, recorder, cache


def test_steps_of_any_size_are_those_of_the_model(model: DecoderModel) -> None:
    """One after the other, so that each finds in the static tensors what larger ones have left."""
    graphed, recorder, cache = made(model)
    rng = torch.Generator().manual_seed(1)
    for count in (8, 3, 5, 1, 2, 7):
        lengths = [300 + 7 * i for i in range(count)] if count < 4 else [5 + 30 * i for i in range(count)]
        tables = [[(2 * i) % 9, (2 * i + 1) % 9] for i in range(count)] if count < 4 else [[i] for i in range(count)]
        batch, positions = decodes(lengths, tables), torch.tensor(lengths) - 1
        embeds = torch.randn(count, model.config.hidden_size, generator=rng).bfloat16()
        before, wanted_cache = cache.clone(), cache.clone()
        wanted = model(embeds, positions, wanted_cache, batch)
        found = graphed(embeds, positions, cache, batch)
        assert found.shape == wanted.shape
        assert (found - wanted).float().norm() / wanted.float().norm() < 1e-2
        assert (cache[:, :, :9] - wanted_cache[:, :, :9]).float().norm() / wanted_cache.float().norm() < 1e-2
        # Beside the tokens' own slots nothing has changed but the first slot of the spare block.
        changed = (cache != before).any(-1).any(-1).any(0).any(0).flatten().nonzero().flatten().tolist()
        assert set(changed) - {9 * BLOCK} == set(batch.slot_mapping.tolist())
    assert recorder.captured == 4
    assert recorder.replays == [8, 4, 8, 1, 2, 8]


@pytest.mark.parametrize("case", ["more than the ladder", "a prompt's chunk", "another cache"])
def test_other_steps_are_not_replayed(model: DecoderModel, case: str) -> None:
    graphed, recorder, cache = made(model)
    lengths, query = [5] * 9, (1,) * 9
    if case == "a prompt's chunk":
        lengths, query = [5, 7], (1, 3)
    if case == "another cache":
        lengths, query, cache = [5], (1,), cache.clone()
    slots = [i * BLOCK + n - q + j for i, (n, q) in enumerate(zip(lengths, query, strict=True)) for j in range(q)]
    tables = torch.arange(len(lengths), dtype=torch.int32)[:, None]
    batch = PagedBatch(query, tuple(lengths), tables, torch.tensor(slots))
    embeds = torch.randn(len(slots), model.config.hidden_size).bfloat16()
    positions = torch.tensor(slots) % BLOCK
    wanted = model(embeds, positions, cache.clone(), batch)
    assert torch.equal(graphed(embeds, positions, cache, batch), wanted)
    assert recorder.replays == []


def test_the_engine_over_graphs(model: DecoderModel) -> None:
    """The tokens of the engine without graphs, where both computed the same batches."""
    answers = []
    for kind in (model, GraphedDecoder(model, Recorder(), ladder=(3,))):
        engine = Engine(kind, EngineConfig(kv_cache=CacheBudget(blocks=6), max_batch_tokens=64), [])
        for i, length in enumerate((40, 7, 300)):
            engine.add(text_prompt(length, seed=i), [], greedy(12))
        answers.append({i: [o.token_id for o in outputs] for i, outputs in drain(engine).items()})
    assert answers[0] == answers[1]


def test_attention_that_reads_lengths_on_the_host_has_no_graphs(golden_decoder: DecoderModel) -> None:
    with pytest.raises(AssertionError):
        GraphedDecoder(DecoderModel(golden_decoder.config, TorchAttention()), Recorder())


def test_the_fused_pieces_compute_the_same(model: DecoderModel) -> None:
    """And few graphs serve all layers and sizes: norms of hidden states, rotations, gates; one more where there is one
    token."""
    compiled: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    batches = [decodes([5 + i for i in range(n)], [[i] for i in range(n)]) for n in (4, 7, 3, 1)]
    embeds = torch.randn(7, model.config.hidden_size).bfloat16()

    def outcomes() -> list[torch.Tensor]:
        cache = torch.zeros_like(model.new_cache(9, BLOCK))
        return [model(embeds[: len(b.query_lens)], torch.tensor(b.context_lens) - 1, cache, b) for b in batches]

    plain = outcomes()
    fusion = Fusion(model, backend)
    outcomes()
    assert not compiled, "where it isn't entered"
    for _ in range(2):
        with fusion:
            fused = outcomes()
        for a, b in zip(plain, fused, strict=True):
            torch.testing.assert_close(a, b)
        assert 3 <= len(compiled) <= 8, "whatever the number of layers, and however often it is entered"
    before = len(compiled)
    outcomes()
    assert len(compiled) == before


def test_what_is_captured_is_fused(model: DecoderModel) -> None:
    """And what is computed kernel by kernel isn't."""
    calls: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        def call(*inputs: object) -> object:
            calls.append(graph)
            return graph.forward(*inputs)

        return call

    recorder = Recorder()
    graphed = GraphedDecoder(model, recorder, ladder=(2,), fusion=Fusion(model, backend))
    cache = graphed.new_cache(9, BLOCK)
    graphed.warm_up(cache)
    assert len(calls) >= recorder.captured * 4 * model.config.num_hidden_layers, "two norms, rotation and gate of each"
    calls.clear()
    prompt = PagedBatch((3,), (3,), torch.tensor([[0]], dtype=torch.int32), torch.arange(3))
    graphed(torch.randn(3, model.config.hidden_size).bfloat16(), torch.arange(3), cache, prompt)
    assert not calls


def test_on_a_device_without_memory() -> None:
    """In a process of its own: such a device, once it is known to torch, is there for good."""
    tests = Path(__file__).with_name("on_a_device.py")
    done = subprocess.run([sys.executable, "-m", "pytest", str(tests)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_graphs_are_captured_on_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which need not be the current one; a capture of another device's stream would hold nothing."""
    current, seen = ["cuda:0"], []

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        current.append(str(chosen))
        yield
        current.pop()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "device": device,
        "graph_pool_handle": lambda: seen.append(("pool", current[-1])),
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda chosen: nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(replay="replay"),
        "graph": lambda graph, pool: seen.append(("graph", current[-1])) or nullcontext(),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    capture = graphed_decoder._CudaCapture(torch.device("cuda:1"))
    out = torch.zeros(1)
    assert capture(lambda: seen.append(("run", current[-1])) or out) == ("replay", out)
    assert seen == [(what, "cuda:1") for what in ("pool", "run", "graph", "run")]
