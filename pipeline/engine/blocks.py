"""Who holds which block of the KV cache, and what the full ones hold. Holds no tensors."""

from __future__ import annotations

from collections import OrderedDict

from .prefix import extend_names
from .sequence import Sequence


class BlockManager:
    """Hands out `num_blocks` blocks of `block_size` tokens.

    A full block has a name (see `prefix`) and may have several holders. When the last one lets go it is kept, to be
    found by its name, until its place is needed: the least recently used goes first. Without `sharing` nothing is
    named.
    """

    def __init__(self, num_blocks: int, block_size: int, *, sharing: bool = True) -> None:
        assert min(num_blocks, block_size) > 0
        self.num_blocks, self.block_size, self.sharing = num_blocks, block_size, sharing
        self._empty = list(range(num_blocks - 1, -1, -1))  # a stack: low numbers first
        self._kept: OrderedDict[int, None] = OrderedDict()  # named, without a holder; least recently used first
        self._holders = [0] * num_blocks
        self._by_name: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        """Blocks without a holder, those that are kept included."""
        return len(self._empty) + len(self._kept)

    @property
    def used(self) -> int:
        return self.num_blocks - self.free

    @property
    def kept(self) -> int:
        return len(self._kept)

    def needed(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def can_ever_hold(self, tokens: int) -> bool:
        return self.needed(tokens) <= self.num_blocks

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """How many more blocks the sequence needs to hold its first `tokens` tokens."""
        return max(self.needed(tokens) - len(sequence.blocks), 0)

    def extend(self, sequence: Sequence, tokens: int) -> None:
        count = self.missing(sequence, tokens)
        assert count <= self.free, "extend() without room: ask missing() first"
        for _ in range(count):
            block = self._empty.pop() if self._empty else self._evict()
            self._holders[block] = 1
            sequence.blocks.append(block)

    def find(self, sequence: Sequence) -> int:
        """Gives a sequence that has none the blocks that hold its beginning; how many tokens need not be computed. The
        last one always must, since somebody wants to know what follows it: where its block was found, computing it
        writes what stands there (to the last bit with native kernels, but for rounding with others)."""
        assert not sequence.blocks
        full = sequence.length // self.block_size
        if self.sharing:
            extend_names(sequence, full, self.block_size)
        for name in sequence.names[:full]:
            block = self._by_name.get(name)
            if block is None:
                break
            self._kept.pop(block, None)
            self._holders[block] += 1
            sequence.blocks.append(block)
        return min(len(sequence.blocks) * self.block_size, sequence.length - 1)

    def fill(self, sequence: Sequence, start: int, stop: int) -> None:
        """The tokens from `start` to `stop` have been computed: the blocks that are full by it can be found."""
        first, last = start // self.block_size, stop // self.block_size
        if not self.sharing or first == last:
            return
        extend_names(sequence, last, self.block_size)
        for name, block in list(zip(sequence.names, sequence.blocks, strict=False))[first:last]:
            if name not in self._by_name and block not in self._names:
                self._by_name[name], self._names[block] = block, name

    def release(self, sequence: Sequence, *, forget: bool = False) -> None:
        """Lets go of all its blocks. `forget`: nobody is to find those that it alone holds."""
        for block in reversed(sequence.blocks):  # the last is to go first: it is of no use without those before it
            assert self._holders[block] > 0, "a block was released twice"
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if forget and block in self._names:
                del self._by_name[self._names.pop(block)]
            if block in self._names:
                self._kept[block] = None
            else:
                self._empty.append(block)
        sequence.blocks.clear()

    def slots(self, sequence: Sequence, start: int, stop: int) -> list[int]:
        """Cache slots of the positions from `start` to `stop`: block * block_size + offset."""
        size, blocks = self.block_size, sequence.blocks
        return [blocks[i // size] * size + i % size for i in range(start, stop)]

    def _evict(self) -> int:
        block, _ = self._kept.popitem(last=False)
        del self._by_name[self._names.pop(block)]
        return block
