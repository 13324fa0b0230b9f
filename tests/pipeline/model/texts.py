"""What decoders are compared over: hidden states of random texts, in any order of steps."""

from __future__ import annotations

import random

import torch

from pipeline.model.attention import PagedBatch
from pipeline.model.decoder import DecoderModel
from pipeline.model.native_decoder import NativeDecoder


class Texts:
    """Random texts in shuffled blocks of a model's cache, computed in any portions."""

    def __init__(self, model: DecoderModel | NativeDecoder, lengths: list[int], block_size: int = 16) -> None:
        self.model, self.block_size = model, block_size
        self.ids = [random.Random(i).choices(range(model.config.vocab_size), k=n) for i, n in enumerate(lengths)]
        counts = [-(-n // block_size) for n in lengths]
        numbers = torch.randperm(sum(counts) + 1, generator=torch.Generator().manual_seed(0)).int()
        self.tables = numbers[: sum(counts)].split(counts)
        self.cache = model.new_cache(len(numbers), block_size)
        self.done = [0] * len(lengths)
        self.hidden: list[list[torch.Tensor]] = [[] for _ in lengths]

    def embeds(self, number: int, first: int, last: int) -> torch.Tensor:
        return self.model.embed(torch.tensor(self.ids[number][first:last]))

    @torch.inference_mode()
    def step(self, portions: dict[int, int]) -> None:
        """{0: 5}: the next five tokens of text 0; all portions in one batch."""
        numbers = list(portions)
        begins = [self.done[n] for n in numbers]
        ends = [min(b + p, len(self.ids[n])) for n, b, p in zip(numbers, begins, portions.values(), strict=True)]
        spans = list(zip(numbers, begins, ends, strict=True))
        slots = [
            int(self.tables[n][t // self.block_size]) * self.block_size + t % self.block_size
            for n, begin, end in spans
            for t in range(begin, end)
        ]
        batch = PagedBatch(
            query_lens=tuple(end - begin for _, begin, end in spans),
            context_lens=tuple(ends),
            block_tables=torch.nn.utils.rnn.pad_sequence([self.tables[n] for n in numbers], batch_first=True),
            slot_mapping=torch.tensor(slots),
        )
        positions = torch.cat([torch.arange(begin, end) for _, begin, end in spans])
        embeds = torch.cat([self.embeds(*span) for span in spans])
        hidden = self.model(embeds, positions, self.cache, batch)
        for (n, _, end), part in zip(spans, hidden.split(batch.query_lens), strict=True):
            self.done[n] = end
            self.hidden[n].append(part)

    def all(self, portion: int, number: int = 0) -> torch.Tensor:
        """One text's hidden states, computed that many tokens at a time."""
        while self.done[number] < len(self.ids[number]):
            self.step({number: portion})
        return torch.cat(self.hidden[number])

    def mixed(self) -> list[torch.Tensor]:
        """Prefills in pieces and decodes side by side, until all texts are done."""
        portions = [37, 1, 64, 9]
        for i in range(1000):
            left = [n for n, ids in enumerate(self.ids) if self.done[n] < len(ids)]
            if not left:
                return [torch.cat(parts) for parts in self.hidden]
            # Each comes into the batch one step after the one before it; a text's last ten tokens come one by one.
            chunks = {n: min(portions[(n + i) % 4], max(len(self.ids[n]) - 10 - self.done[n], 1)) for n in left}
            self.step({n: chunk for n, chunk in chunks.items() if n <= i})
        raise AssertionError("never done")
