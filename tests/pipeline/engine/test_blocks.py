from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.blocks import BlockManager
from pipeline.engine.sequence import Sequence
from pipeline.types import Prompt, SamplingParams


def sequence(number: int = 0, length: int = 10) -> Sequence:
    return Sequence(number, Prompt([1] * length), SamplingParams(), 5, (0, 0), frozenset())


def test_blocks_are_handed_out_as_tokens_need_them() -> None:
    blocks, holder = BlockManager(4, 3), sequence()
    assert [blocks.needed(n) for n in (0, 1, 3, 4, 12)] == [0, 1, 1, 2, 4]
    assert blocks.missing(holder, 4) == 2
    blocks.extend(holder, 4)
    assert (len(holder.blocks), blocks.free, blocks.used) == (2, 2, 2)
    assert blocks.missing(holder, 6) == 0
    blocks.extend(holder, 6)
    assert blocks.used == 2
    blocks.extend(holder, 12)
    assert (blocks.free, len(set(holder.blocks))) == (0, 4)
    blocks.release(holder)
    assert (holder.blocks, blocks.free) == ([], 4)


def test_capacity() -> None:
    blocks = BlockManager(4, 3)
    assert blocks.can_ever_hold(12)
    assert not blocks.can_ever_hold(13)


def test_extending_without_room_is_a_bug() -> None:
    blocks = BlockManager(1, 3)
    with pytest.raises(AssertionError):
        blocks.extend(sequence(), 4)


def test_releasing_twice_frees_once() -> None:
    blocks, holder = BlockManager(4, 3), sequence()
    blocks.extend(holder, 12)
    blocks.release(holder)
    blocks.release(holder)
    assert blocks.free == 4


@pytest.mark.parametrize(("num_blocks", "block_size"), [(0, 1), (1, 0), (-1, 1)])
def test_no_room_at_all_is_a_bug(num_blocks: int, block_size: int) -> None:
    with pytest.raises(AssertionError):
        BlockManager(num_blocks, block_size)


@given(st.integers(1, 7), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=40))
def test_no_slot_belongs_to_two(block_size: int, moves: list[tuple[int, int]]) -> None:
    """Any order of extending and releasing (0 tokens): slots stay distinct, nothing is lost."""
    blocks = BlockManager(12, block_size)
    holders = [sequence(i) for i in range(4)]
    for number, tokens in moves:
        if tokens == 0:
            blocks.release(holders[number])
        elif blocks.missing(holders[number], tokens) <= blocks.free:
            blocks.extend(holders[number], tokens)
        slots = [s for h in holders for s in blocks.slots(h, 0, len(h.blocks) * block_size)]
        assert len(slots) == len(set(slots)) == blocks.used * block_size
        assert all(0 <= slot < 12 * block_size for slot in slots)


def test_slots_follow_the_table() -> None:
    blocks, holder = BlockManager(9, 4), sequence()
    holder.blocks = [7, 2, 5]
    assert blocks.slots(holder, 2, 10) == [30, 31, 8, 9, 10, 11, 20, 21]
