from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.native.attention import QUERY_ROWS, Cache, attend, new_cache, new_scratch, write
from pipeline.native.tile import LANES

LAYERS, LAYER, KV_HEADS = 2, 1, 2


@dataclass
class Sequence:
    table: np.ndarray
    q: np.ndarray  # [context, heads, head size], scaled
    k: np.ndarray  # [context, KV heads, head size]
    v: np.ndarray


@dataclass
class Case:
    """Sequences in the shuffled blocks of one cache; where they haven't written stands `garbage`."""

    cache: Cache
    sequences: list[Sequence]

    @property
    def block_size(self) -> int:
        return self.cache.values.shape[4]

    def attended(self, number: int, first: int, queries: int) -> np.ndarray:
        """For neighbouring tokens of one sequence, [queries, heads, head size]: computed together, in the middle of
        larger arrays that stay as they were."""
        s = self.sequences[number]
        heads, size = s.q.shape[1:]
        group = heads // KV_HEADS
        q = np.full((queries + 3, (heads + 2 * KV_HEADS) * size), np.nan, np.float32)
        q[2 : 2 + queries, : heads * size] = s.q[first : first + queries].reshape(queries, -1)
        out = np.full((queries + 3, heads * size), np.nan, np.float32)
        scratch = new_scratch(2, group * queries, self.block_size, size)
        for part in scratch:
            part.fill(np.nan)
        for head in range(KV_HEADS):
            attend(q, 2, queries, group, head, first, self.cache, LAYER, s.table, scratch, 1, out)
        assert np.isnan(out[:2]).all()
        assert np.isnan(out[2 + queries :]).all()
        assert all(np.isnan(part[0]).all() for part in scratch)
        return out[2 : 2 + queries].reshape(queries, heads, size)

    def whole(self, number: int) -> np.ndarray:
        """Of all tokens, tile by tile as `NativeDecoder` cuts them."""
        s = self.sequences[number]
        most = QUERY_ROWS // (s.q.shape[1] // KV_HEADS)
        starts = range(0, len(s.q), most)
        return np.concatenate([self.attended(number, at, min(most, len(s.q) - at)) for at in starts])


def make_case(
    contexts: list[int], group: int = 2, size: int = 32, block_size: int = 16, garbage: float = np.nan, seed: int = 0
) -> Case:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    needed = [-(-context // block_size) for context in contexts]
    cache = new_cache(LAYERS, sum(needed) + 2, KV_HEADS, block_size, size)
    cache.keys.fill(garbage)
    cache.values.fill(garbage)
    numbers = rng.permutation(sum(needed) + 2).astype(np.int32)
    sequences = []
    for context, count in zip(contexts, needed, strict=True):
        table, numbers = numbers[:count].copy(), numbers[count:]
        q = normal(context, group * KV_HEADS, size) / np.float32(np.sqrt(size))
        s = Sequence(table, q, normal(context, KV_HEADS, size), normal(context, KV_HEADS, size))
        store(cache, s, range(context))
        sequences.append(s)
    return Case(cache, sequences)


def store(cache: Cache, s: Sequence, tokens: range) -> None:
    block_size = cache.values.shape[4]
    for t in tokens:
        slot = int(s.table[t // block_size]) * block_size + t % block_size
        for head in range(KV_HEADS):
            write(cache, LAYER, head, slot, s.k[t, head], s.v[t, head])


def softmaxed(s: Sequence) -> np.ndarray:
    """float64, one query at a time."""
    out = np.empty(s.q.shape, np.float64)
    q, k, v = (x.astype(np.float64) for x in (s.q, s.k, s.v))
    group = q.shape[1] // KV_HEADS
    for t in range(len(q)):
        for head in range(q.shape[1]):
            scores = k[: t + 1, head // group] @ q[t, head]
            weights = np.exp(scores - scores.max())
            out[t, head] = weights @ v[: t + 1, head // group] / weights.sum()
    return out


@pytest.mark.parametrize("block_size", [16, 32, 64])
@pytest.mark.parametrize("size", [16, 32, 64, 80])
@pytest.mark.parametrize("group", [1, 2, 3, 4, 5])
def test_equals_softmax_whoever_is_computed_beside(group: int, size: int, block_size: int) -> None:
    """A query alone has the same result, to the last bit, as in a tile of its neighbours."""
    case = make_case([block_size + 1, 1, 2 * block_size, 2 * block_size + 9, block_size - 1], group, size, block_size)
    for number, s in enumerate(case.sequences):
        out = case.whole(number)
        assert np.abs(out - softmaxed(s)).max() < 2e-6
        for t in {0, len(s.q) // 2, len(s.q) - 1}:
            np.testing.assert_array_equal(case.attended(number, t, 1)[0], out[t])


def test_every_query_alone_and_in_any_tile() -> None:
    case = make_case([70], group=3, block_size=32)
    out = case.whole(0)
    for queries in (1, 2, 5, 7):
        for first in range(0, 70, queries):
            count = min(queries, 70 - first)
            np.testing.assert_array_equal(case.attended(0, first, count), out[first : first + count])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38])
def test_what_nobody_has_written_is_not_seen(garbage: float) -> None:
    contexts = [5, 16, 17, 47]
    clean, case = (make_case(contexts, group=4, garbage=value) for value in (0.0, garbage))
    for number in range(len(contexts)):
        out = case.whole(number)
        assert np.isfinite(out).all()
        np.testing.assert_array_equal(out, clean.whole(number))


def test_what_comes_later_is_not_seen() -> None:
    """A prompt's first tokens, before the others are in the cache and after."""
    whole, early = make_case([50], block_size=32), make_case([50], block_size=32)
    s = early.sequences[0]
    early.cache.keys.fill(np.nan)
    early.cache.values.fill(np.inf)
    for first in range(0, 50, 7):
        tokens = range(first, min(first + 7, 50))
        store(early.cache, s, tokens)
        np.testing.assert_array_equal(early.attended(0, first, len(tokens)), whole.attended(0, first, len(tokens)))


def test_the_cache_is_made_of_panels() -> None:
    cache = new_cache(3, 5, KV_HEADS, 32, 48)
    assert cache.keys.shape == (3, 5, KV_HEADS, 2, 48, LANES)
    assert cache.values.shape == (3, 5, KV_HEADS, 3, 32, LANES)
    assert cache.keys.dtype == cache.values.dtype == np.float32
    for part in cache:
        part.fill(-1)
    k, v = np.arange(48, dtype=np.float32), np.arange(100, 148, dtype=np.float32)
    write(cache, 2, 1, 4 * 32 + 19, k, v)
    np.testing.assert_array_equal(cache.keys[2, 4, 1, 1, :, 3], k)
    np.testing.assert_array_equal(cache.values[2, 4, 1, :, 19].ravel(), v)
    assert [int((part != -1).sum()) for part in cache] == [48, 48]


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_scores_far_apart(order: str) -> None:
    """From -1e30 to 1e30: the largest has all the weight, whichever block it stands in; nothing overflows."""
    context = 60
    case = make_case([context], group=1, size=16)
    s = case.sequences[0]
    scores = np.linspace(-1, 1, context) * 1e30
    if order == "falling":
        scores = scores[::-1]
    elif order == "shuffled":
        scores = np.random.default_rng(0).permutation(scores)
    s.q[:], s.k[:] = 0, 0
    s.q[:, :, 0], s.k[:, :, 0] = 1e10, (scores / 1e10)[:, None]
    store(case.cache, s, range(context))
    out = case.whole(0)
    for t in range(context):
        np.testing.assert_array_equal(out[t], s.v[np.argmax(scores[: t + 1])])


@pytest.mark.parametrize("level", [-3.2e38, -80.0, -1e4, 1e4, 1e8])
def test_only_the_distance_of_scores_counts(level: float) -> None:
    """All equal, however low or high: the mean of the values."""
    case = make_case([40], group=1, size=16)
    s = case.sequences[0]
    s.q[:], s.k[:] = 0, 0
    s.q[:, :, 3], s.k[:, :, 3] = 1, level
    store(case.cache, s, range(40))
    mean = np.cumsum(s.v.astype(np.float64), 0) / np.arange(1, 41)[:, None, None]
    np.testing.assert_allclose(case.whole(0), mean, atol=1e-6)


@pytest.mark.parametrize("token", [0, 15, 16, 20, 39])
def test_a_key_that_is_no_number(token: int) -> None:
    """Who sees it has no result; who doesn't, and the other KV head and the other sequence, have theirs as before."""
    contexts = [40, 33]
    case = make_case(contexts, group=3)
    before = [case.whole(number) for number in range(2)]
    s = case.sequences[0]
    s.k[token, 1, 5] = np.nan
    store(case.cache, s, range(token, token + 1))
    out = case.whole(0)
    assert np.isnan(out[token:, 3:]).all()
    np.testing.assert_array_equal(out[:token], before[0][:token])
    np.testing.assert_array_equal(out[:, :3], before[0][:, :3])
    np.testing.assert_array_equal(case.whole(1), before[1])
