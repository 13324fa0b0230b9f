"""Who holds which block of the KV cache. Holds no tensors."""

from __future__ import annotations

from .sequence import Sequence


class BlockManager:
    """Hands out `num_blocks` blocks of `block_size` tokens. Each block has one holder at most."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        assert min(num_blocks, block_size) > 0
        self.num_blocks, self.block_size = num_blocks, block_size
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack: low numbers first

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.num_blocks - len(self._free)

    def needed(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def can_ever_hold(self, tokens: int) -> bool:
        return self.needed(tokens) <= self.num_blocks

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """How many more blocks the sequence needs to hold its first `tokens` tokens."""
        return max(self.needed(tokens) - len(sequence.blocks), 0)

    def extend(self, sequence: Sequence, tokens: int) -> None:
        count = self.missing(sequence, tokens)
        assert count <= len(self._free), "extend() without room: ask missing() first"
        sequence.blocks += [self._free.pop() for _ in range(count)]

    def release(self, sequence: Sequence) -> None:
        self._free += reversed(sequence.blocks)
        sequence.blocks.clear()
        assert len(self._free) <= self.num_blocks, "a block was released twice"

    def slots(self, sequence: Sequence, start: int, stop: int) -> list[int]:
        """Cache slots of the positions from `start` to `stop`: block * block_size + offset."""
        size, blocks = self.block_size, sequence.blocks
        return [blocks[i // size] * size + i % size for i in range(start, stop)]
