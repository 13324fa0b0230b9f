from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.engine.blocks import BlockManager
from pipeline.engine.prefix import extend_names
from pipeline.engine.sequence import Sequence
from pipeline.types import MediaSpan, Prompt, SamplingParams

TOKENS = list(range(20))


def sequence(tokens: list[int], *spans: MediaSpan, number: int = 0) -> Sequence:
    return Sequence(number, Prompt(list(tokens), spans), SamplingParams(), 50, (0, 0), frozenset())


def names(tokens: list[int], *spans: MediaSpan, blocks: int = 4, size: int = 5) -> list[bytes]:
    named = sequence(tokens, *spans)
    extend_names(named, blocks, size)
    return named.names


def test_a_name_stands_for_everything_up_to_the_end_of_the_block() -> None:
    first = names(TOKENS)
    assert len(set(first)) == 4
    assert names(TOKENS) == first
    for changed in range(20):
        other = names([99 if i == changed else t for i, t in enumerate(TOKENS)])
        assert [a == b for a, b in zip(first, other, strict=True)] == [i < changed // 5 for i in range(4)]


def test_equal_blocks_after_different_ones_have_different_names() -> None:
    assert len(set(names([7] * 20))) == 4


def test_where_tokens_are_cut_does_not_matter_to_other_sizes() -> None:
    assert names(TOKENS, blocks=2, size=10)[0] != names(TOKENS, blocks=4, size=5)[0]


SPAN = MediaSpan(start=3, length=9, media=0, offset=0, key="a cat")


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({}, 4),
        ({"media": 1}, 4),  # which of the request's media it is doesn't matter
        ({"key": "a dog"}, 0),
        ({"offset": 9}, 0),
        ({"length": 8}, 2),  # the third block has one row less, and a token
        ({"start": 4}, 0),
    ],
)
def test_media_are_told_apart_by_what_they_are_and_which_rows_stand_where(change: dict[str, int], alike: int) -> None:
    first, other = names(TOKENS, SPAN), names(TOKENS, replace(SPAN, **change))  # type: ignore[arg-type]
    same = [a == b for a, b in zip(first, other, strict=True)]
    assert same == [i < alike for i in range(4)]


def test_media_of_unknown_origin_and_what_follows_have_no_name() -> None:
    unknown = MediaSpan(start=7, length=3, media=0, offset=0)
    assert names(TOKENS, unknown) == names(TOKENS)[:1]
    assert names(TOKENS, replace(unknown, start=17)) == names(TOKENS)[:3]


def test_a_block_is_named_when_all_its_tokens_are_known() -> None:
    with pytest.raises(AssertionError):
        extend_names(sequence(TOKENS), 5, 5)


def test_answers_are_named_with_the_prompt() -> None:
    asked = sequence(TOKENS[:13])
    asked.output = TOKENS[13:]
    extend_names(asked, 4, 5)
    assert asked.names == names(TOKENS)


class TestSharing:
    def fill(self, blocks: BlockManager, tokens: list[int], number: int = 0) -> Sequence:
        asked = sequence(tokens, number=number)
        asked.computed = blocks.find(asked)
        blocks.extend(asked, len(tokens))
        blocks.fill(asked, asked.computed, len(tokens))
        asked.computed = len(tokens)
        return asked

    def test_what_begins_alike_has_the_same_blocks(self) -> None:
        blocks = BlockManager(10, 5)
        first = self.fill(blocks, TOKENS)
        second = self.fill(blocks, [*TOKENS[:12], 99, 99])
        assert second.blocks[:2] == first.blocks[:2]
        assert not set(second.blocks[2:]) & set(first.blocks)
        assert blocks.used == 5

    def test_a_token_is_left_to_compute(self) -> None:
        blocks = BlockManager(10, 5)
        self.fill(blocks, TOKENS)
        again = sequence(TOKENS)
        assert blocks.find(again) == 19
        assert blocks.find(sequence(TOKENS[:16])) == 15
        assert blocks.find(sequence(TOKENS[:15])) == 14
        assert blocks.find(sequence(TOKENS[:14])) == 10

    def test_the_last_token_is_computed_within_the_block_that_holds_it(self) -> None:
        blocks = BlockManager(4, 5)
        first = self.fill(blocks, TOKENS)
        second = self.fill(blocks, TOKENS, number=1)
        assert second.blocks == first.blocks
        assert blocks.slots(second, 19, 20) == [first.blocks[3] * 5 + 4]
        assert blocks.used == 4
        blocks.release(first)
        blocks.release(second)
        assert (blocks.used, blocks.kept) == (0, 4)

    def test_blocks_outlive_their_holders_until_the_place_is_needed(self) -> None:
        blocks = BlockManager(6, 5)
        blocks.release(self.fill(blocks, TOKENS))
        assert (blocks.used, blocks.kept, blocks.free) == (0, 4, 6)
        other = self.fill(blocks, [50 + i for i in range(20)], number=1)  # two empty ones, and the last two of the four
        assert (blocks.used, blocks.kept) == (4, 2)
        assert blocks.find(sequence(TOKENS)) == 10
        blocks.release(other)

    def test_the_least_recently_used_goes_first(self) -> None:
        blocks = BlockManager(4, 5)
        blocks.release(self.fill(blocks, TOKENS[:10]))
        blocks.release(self.fill(blocks, [9] * 10, number=1))
        blocks.release(self.fill(blocks, [*TOKENS[:10], 1], number=2))  # used again; and a block is taken for the 11th
        assert blocks.find(sequence([*TOKENS[:10], 5])) == 10
        assert blocks.find(sequence([*[9] * 10, 5])) == 5

    def test_what_failed_is_not_found(self) -> None:
        blocks = BlockManager(10, 5)
        good = self.fill(blocks, TOKENS[:10])
        bad = self.fill(blocks, [*TOKENS[:10], *[3] * 10], number=1)
        blocks.release(bad, forget=True)
        assert blocks.find(sequence([*TOKENS[:10], *[3] * 10])) == 10, "what others hold too has not failed"
        blocks.release(good, forget=True)

    def test_without_sharing_nothing_is_found(self) -> None:
        blocks = BlockManager(10, 5, sharing=False)
        blocks.release(self.fill(blocks, TOKENS))
        assert blocks.find(sequence(TOKENS)) == 0
        assert blocks.kept == 0
