"""The only room of the engine that knows the model: chunks -> logits, through the KV cache."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from typing import Any, Protocol

import torch

from ..config import DecoderConfig
from ..model.attention import PagedBatch
from ..transfer import moved, to_device
from .blocks import BlockManager
from .scheduler import Chunk


class Model(Protocol):
    """A decoder over a paged KV cache of its own making: `DecoderModel`, `NativeDecoder`."""

    config: DecoderConfig

    @property
    def device(self) -> torch.device: ...

    @property
    def block_size(self) -> int:
        """Tokens a block that suit its attention kernel; others must be a multiple of `block_size_multiple`."""

    @property
    def block_size_multiple(self) -> int: ...

    def set_threads(self, threads: int) -> None:
        """CPU threads of a step; called from the thread that takes the steps."""

    def cache_bytes(self, tokens: int) -> int:
        """Of the KV cache, for as many tokens."""

    def new_cache(self, blocks: int, block_size: int) -> Any: ...

    def warm_up(self, cache: Any) -> None:
        """Does what would make the first step slow. May write into the cache's first block."""

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [T] -> [T, D]."""

    def __call__(self, embeds: torch.Tensor, positions: torch.Tensor, cache: Any, batch: PagedBatch) -> torch.Tensor:
        """embeds [T, D], positions int64 [T] -> hidden states [T, D]."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, D] -> float32 [N, vocab]."""


class Runner:
    def __init__(self, model: Model, blocks: BlockManager) -> None:
        self.model, self.blocks = model, blocks
        self.cache = model.new_cache(blocks.num_blocks, blocks.block_size)
        model.warm_up(self.cache)
        # Embeds of each sequence's media, [rows, D] a medium. They stay where they were made (the
        # CPU, when they came from another process) and move chunk by chunk.
        self._media: dict[int, list[torch.Tensor]] = {}

    def attach(self, sequence_id: int, media: Ordered[torch.Tensor]) -> None:
        self._media[sequence_id] = list(media)

    def detach(self, sequence_id: int) -> None:
        self._media.pop(sequence_id, None)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.inference_mode()
    def run(self, chunks: list[Chunk]) -> torch.Tensor:
        """Computes the chunks; returns logits, float32 [chunks that sample, vocab], in their order."""
        hidden = self._forward(chunks)
        ends, end = [], 0
        for chunk in chunks:
            end += chunk.length
            if chunk.samples:
                ends.append(end - 1)
        return self.model.logits(hidden[to_device(ends, torch.int64, self.device)] if ends else hidden[:0])

    @torch.inference_mode()
    def all_logits(self, chunk: Chunk) -> torch.Tensor:
        """Logits at each position of one chunk, float32 [T, vocab] (parity tests, training)."""
        return self.model.logits(self._forward([chunk]))

    def _forward(self, chunks: list[Chunk]) -> torch.Tensor:
        positions = [p for chunk in chunks for p in range(chunk.start, chunk.stop)]
        slots = [s for c in chunks for s in self.blocks.slots(c.sequence, c.start, c.stop)]
        widest = max(len(chunk.sequence.blocks) for chunk in chunks)
        tables = [c.sequence.blocks + [0] * (widest - len(c.sequence.blocks)) for c in chunks]
        batch = PagedBatch(
            query_lens=tuple(c.length for c in chunks),
            context_lens=tuple(c.stop for c in chunks),
            block_tables=to_device(tables, torch.int32, self.device),
            slot_mapping=to_device(slots, torch.int64, self.device),
        )
        return self.model(self._embed(chunks), to_device(positions, torch.int64, self.device), self.cache, batch)

    def _embed(self, chunks: list[Chunk]) -> torch.Tensor:
        """Token embeddings [T, D], with each medium's rows at its places."""
        ids = [t for chunk in chunks for t in chunk.sequence.tokens(chunk.start, chunk.stop)]
        embeds = self.model.embed(to_device(ids, torch.int64, self.device))
        base = 0
        for chunk in chunks:
            for span in chunk.sequence.prompt.spans:
                first, last = max(span.start, chunk.start), min(span.start + span.length, chunk.stop)
                if first < last:
                    row = span.offset + first - span.start
                    rows = self._media[chunk.sequence.id][span.media][row : row + last - first]
                    at = base + first - chunk.start
                    embeds[at : at + last - first] = moved(rows, embeds.device, embeds.dtype)
            base += chunk.length
        return embeds
