"""The language stage on a GPU: steps of decodes replayed as CUDA graphs, their small pieces one kernel each.

A step of a few tokens is hundreds of short kernels; launched one by one, the GPU waits for Python. A graph launches all
of them at once, but always the same ones, on the same memory: so there is one for each of a ladder of batch sizes, and
a step is padded to the next. What padding rows write goes to a block of the cache that nobody else has.

Prompts are computed kernel by kernel. Short ones take as long as Python does, and to call what is compiled takes it
longer than the few kernels that this saves: with everything compiled, a prompt of 128 tokens took 57 ms on an H100, as
one of 512.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from ..config import DecoderConfig
from .attention import PagedBatch
from .decoder import DecoderModel, Gate, KVCache, RMSNorm, Rotary

log = logging.getLogger(__name__)

LADDER = (1, 2, 4, 8, 16, 24, 32, 48, 64)
"""Batch sizes that have a graph. Larger steps are launched kernel by kernel: they keep the GPU busy for longer than
Python takes."""

Capture = Callable[[Callable[[], torch.Tensor]], tuple[Callable[[], None], torch.Tensor]]
"""Takes a function of static tensors; gives what runs it again, and the tensor that its result will stand in."""


@dataclass(frozen=True)
class Inputs:
    """Where graphs read from: rows for the largest, of which smaller ones use the first."""

    embeds: torch.Tensor  # [rows, D]
    positions: torch.Tensor  # int64 [rows]
    slots: torch.Tensor  # int64 [rows]
    contexts: torch.Tensor  # int32 [rows]
    tables: torch.Tensor  # int32 [rows, blocks of the longest context]

    def load(self, embeds: torch.Tensor, positions: torch.Tensor, batch: PagedBatch) -> None:
        for static, given in (
            (self.embeds, embeds),
            (self.positions, positions),
            (self.slots, batch.slot_mapping),
            (self.contexts, batch.contexts),
        ):
            static[: len(given)].copy_(given)
        rows, blocks = batch.block_tables.shape
        self.tables[:rows, :blocks].copy_(batch.block_tables)

    def pad(self, first: int, last: int, spare: int, block_size: int) -> None:
        """Rows from `first` to `last`: one token each, alone in the block `spare`."""
        rows = slice(first, last)
        self.positions[rows].zero_()
        self.contexts[rows].fill_(1)
        self.tables[rows, :1].fill_(spare)
        self.slots[rows].fill_(spare * block_size)

    def batch(self, rows: int) -> PagedBatch:
        return StaticBatch((1,) * rows, (1,) * rows, self.tables[:rows], self.slots[:rows], self.contexts[:rows])


@dataclass(frozen=True)
class StaticBatch(PagedBatch):
    """Its lengths change on the device; `context_lens` says nothing."""

    static_contexts: torch.Tensor

    @property
    def contexts(self) -> torch.Tensor:
        return self.static_contexts


class GraphedDecoder:
    """Interface of DecoderModel, which it drives. Its attention must be `replayable`."""

    def __init__(
        self,
        model: DecoderModel,
        capture: Capture | None = None,
        ladder: tuple[int, ...] = LADDER,
        fusion: AbstractContextManager[object] | None = None,
    ) -> None:
        """`fusion`: entered for what is captured."""
        assert model.attention.replayable
        self.model, self.config = model, model.config
        self._fusion = fusion or nullcontext()
        self._ladder, self._capture = ladder, capture or _CudaCapture(self.device)
        self._cache: KVCache | None = None
        self._inputs: Inputs | None = None
        self._graphs: dict[int, tuple[Callable[[], None], torch.Tensor]] = {}

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def block_size_multiple(self) -> int:
        return self.model.block_size_multiple

    @property
    def block_size(self) -> int:
        return self.model.block_size

    def set_threads(self, threads: int) -> None:
        """Nothing: what torch.compile has made is for the number of threads that it found, on a GPU, too."""

    def cache_bytes(self, tokens: int) -> int:
        return self.model.cache_bytes(tokens)

    def new_cache(self, blocks: int, block_size: int) -> KVCache:
        """With one block more, for padding."""
        return self.model.new_cache(blocks + 1, block_size)

    @torch.inference_mode()
    def warm_up(self, cache: KVCache) -> None:
        """Captures the graphs, which belong to this cache from now on, the largest first: the smaller ones fit into its
        memory."""
        begin = time.perf_counter()
        self._cache, self._inputs = cache, _new_inputs(self.config, max(self._ladder), cache)
        self._inputs.pad(0, max(self._ladder), *self._spare(cache))
        with self._fusion:
            for rows in sorted(self._ladder, reverse=True):
                self._graphs[rows] = self._capture(self._step(cache, self._inputs, rows))
        log.info("%d CUDA graphs captured in %.1f s", len(self._graphs), time.perf_counter() - begin)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed(token_ids)

    @torch.inference_mode()
    def __call__(
        self, embeds: torch.Tensor, positions: torch.Tensor, cache: KVCache, batch: PagedBatch
    ) -> torch.Tensor:
        """As DecoderModel's; the result of a graph stands until the next step."""
        count = len(embeds)
        rows = min((rows for rows in self._graphs if rows >= count), default=None)
        if rows is None or not batch.decodes or cache is not self._cache:
            hidden: torch.Tensor = self.model(embeds, positions, cache, batch)
            return hidden
        assert self._inputs is not None
        self._inputs.load(embeds, positions, batch)
        if count < rows:
            self._inputs.pad(count, rows, *self._spare(cache))
        replay, hidden = self._graphs[rows]
        replay()
        return hidden[:count]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.logits(hidden)

    def _step(self, cache: KVCache, inputs: Inputs, rows: int) -> Callable[[], torch.Tensor]:
        return lambda: self.model(inputs.embeds[:rows], inputs.positions[:rows], cache, inputs.batch(rows))

    @staticmethod
    def _spare(cache: KVCache) -> tuple[int, int]:
        """The block that padding writes to, and the blocks' size."""
        return cache.shape[2] - 1, cache.shape[3]


class Fusion:
    """What torch.compile makes of each norm, each rotation and each gate, one kernel each: called where this is
    entered. Elsewhere the modules are as they were."""

    def __init__(self, model: DecoderModel, backend: str | Callable[..., object] = "inductor") -> None:
        self._compiled: list[tuple[nn.Module, Callable[..., object] | None]] = []
        for module in model.modules():
            if isinstance(module, RMSNorm | Rotary | Gate):
                module.compile(fullgraph=True, dynamic=True, backend=backend)
                self._compiled.append((module, module._compiled_call_impl))
        self.__exit__()

    def __enter__(self) -> None:
        for module, call in self._compiled:
            module._compiled_call_impl = call

    def __exit__(self, *_: object) -> None:
        for module, _call in self._compiled:
            module._compiled_call_impl = None


def _new_inputs(config: DecoderConfig, rows: int, cache: KVCache) -> Inputs:
    def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=cache.device)

    return Inputs(
        embeds=zeros(cache.dtype, rows, config.hidden_size),
        positions=zeros(torch.int64, rows),
        slots=zeros(torch.int64, rows),
        contexts=zeros(torch.int32, rows),
        tables=zeros(torch.int32, rows, -(-config.max_position_embeddings // cache.shape[3])),
    )


class _CudaCapture:
    """All graphs share one pool of memory: never two run at a time. A capture is of the current device's stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        with torch.cuda.device(self._device):
            return self._captured(function)

    def _captured(self, function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what compiles or allocates for good does so before the capture
            function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = function()
        return graph.replay, out
