"""Draws tokens from scores by the filters min_p, top_k and top_p, without sorting the vocabulary.

Tokens are taken in order of probability, equal ones by their numbers, until the sum of their probabilities reaches the
random share (inverse transform sampling). Those within some nats of the best one are put into bins by their scores;
only bins in which something ends are sorted. Where they don't hold what is looked for, those further down are taken,
too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .scalar import exp_negative

SPANS = np.array([5, 9, 18, 32], np.float32)
"""Nats below the best token that are looked at, one after the other."""

LEAST = np.exp(-SPANS[-1])
"""Of the best token's weight, 1e-14: what is less counts for nothing."""

BINS = 1024

STRETCH = 64
"""Scores that are passed over at once where none is high enough."""

GAPS = (1750, 701, 301, 132, 57, 23, 10, 4, 1)
"""Of Shell's sort (Ciura, 2001)."""

UNRESOLVED = -1
"""In place of a token."""

_EVERY = np.iinfo(np.int64).max


class Rules(NamedTuple):
    """What `draw.Filters` says of each row, [N]: top_k int64, the others float64."""

    shares: np.ndarray
    temperatures: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    min_p: np.ndarray


class Bins(NamedTuple):
    """Tokens by the height of their scores."""

    places: np.ndarray  # int32
    numbers: np.ndarray  # int32, the bin of each; BINS for one without weight
    counts: np.ndarray  # int64 [BINS]
    masses: np.ndarray  # float64 [BINS], the sums of their weights


@numba.njit(nogil=True, error_model="numpy")
def choose(scores: Any, highest: float, lowest: float, rules: Any, row: int, weights: Any, places: Any) -> int:
    """The token of one row: float32 [vocab], all finite or -inf, from `lowest` to `highest`; UNRESOLVED for others, and
    where none is finite. weights, places: room for float32 and int32 [vocab]."""
    inverse, top_k = np.float32(1 / rules.temperatures[row]), rules.top_k[row]
    total = _weigh(scores, highest, inverse, max(LEAST, np.float32(rules.min_p[row])), weights)
    wanted = top_k if 0 < top_k < len(scores) else _EVERY
    for span in SPANS:
        count = _nearest(scores, highest - span / inverse, places)
        binned = _bins(
            scores, weights, places[:count], highest, inverse * BINS / min(span, (highest - lowest) * inverse)
        )
        token = _among(scores, weights, binned, span == SPANS[-1], total, wanted, rules.top_p[row], rules.shares[row])
        if token != UNRESOLVED:
            return token
    return UNRESOLVED


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc"})
def _weigh(scores: Any, highest: float, inverse: float, min_p: float, weights: Any) -> float:
    """Weights relative to the best token's, 0 below `min_p`; their sum."""
    for i in range(len(scores)):
        weight = exp_negative((scores[i] - highest) * inverse)
        weights[i] = weight if weight >= min_p else np.float32(0)
    total = 0.0
    for i in range(len(scores)):  # a loop of its own: in one they would be half as fast
        total += weights[i]
    return total


@numba.njit(nogil=True, error_model="numpy")
def _nearest(scores: Any, bottom: float, places: Any) -> int:
    """Writes down which scores are not below `bottom`; how many."""
    count = 0
    for first in range(0, len(scores), STRETCH):
        stretch = scores[first : first + STRETCH]
        if len(stretch) == STRETCH:
            some = np.int32(0)
            for i in range(STRETCH):
                some |= np.int32(stretch[i] >= bottom)
            if not some:
                continue
        for i in range(len(stretch)):
            places[count] = first + i
            count += stretch[i] >= bottom
    return count


@numba.njit(nogil=True, error_model="numpy")
def _bins(scores: Any, weights: Any, places: Any, highest: float, scale: float) -> Bins:
    """Of those of `places` that have any weight. `scale`: bins a unit of the scores."""
    numbers, counts, masses = np.empty(len(places), np.int32), np.zeros(BINS, np.int64), np.zeros(BINS)
    for i in range(len(places)):
        weight = weights[places[i]]
        b = _bin(scores[places[i]], highest, scale)
        numbers[i] = b if weight > 0 else BINS
        counts[b] += weight > 0
        masses[b] += weight
    return Bins(places, numbers, counts, masses)


@numba.njit(nogil=True, error_model="numpy")
def _bin(score: float, highest: float, scale: float) -> int:
    at = (highest - score) * scale
    return int(at) if at < BINS - 1 else BINS - 1


@numba.njit(nogil=True, error_model="numpy")
def _among(
    scores: Any, weights: Any, bins: Any, everything: bool, total: float, wanted: int, top_p: float, share: float
) -> int:
    """The token, if it is in the bins; `everything`: there is none elsewhere. `total`: the weight of all there are."""
    held, count = bins.masses.sum(), bins.counts.sum()
    end, most = BINS - 1, _EVERY  # the last bin of which something is left, and how many of its tokens
    complete = everything
    if wanted < count:
        end, most = 0, wanted
        while most > bins.counts[end]:
            most -= bins.counts[end]
            end += 1
        _, _, total = _advance(scores, weights, bins, end, bins.masses[:end].sum(), np.inf, False, most)
        complete = True
    elif wanted != _EVERY and not everything:
        return UNRESOLVED
    if top_p < 1:
        limit = top_p * total
        if not complete and held < limit:
            return UNRESOLVED
        found, before = _reach(bins.masses, limit, True, end)
        _, taken, total = _advance(scores, weights, bins, found, before, limit, True, most if found == end else _EVERY)
        end, most, complete = found, taken, True
    target = share * total
    if not complete and held <= target:
        return UNRESOLVED
    found, before = _reach(bins.masses, target, False, end)
    token, _, _ = _advance(scores, weights, bins, found, before, target, False, most if found == end else _EVERY)
    return token


@numba.njit(nogil=True, error_model="numpy")
def _reach(masses: Any, target: float, exactly: bool, end: int) -> tuple[int, float]:
    """The bin, `end` at the latest, in which the sum grows over `target`, or with `exactly` is as much; the sum before
    it. The last one with any weight where rounding lets none do so."""
    before, last, until = 0.0, 0, 0.0
    for b in range(end + 1):
        after = before + masses[b]
        if masses[b] > 0:
            last, until = b, before
            if after > target or (exactly and after == target):
                break
        before = after
    return last, until


@numba.njit(nogil=True, error_model="numpy")
def _advance(
    scores: Any, weights: Any, bins: Any, b: int, before: float, target: float, exactly: bool, most: int
) -> tuple[int, int, float]:
    """Adds the weights of a bin's first `most` tokens to `before` until the sum is over `target`, or with `exactly` as
    much: the token that was added last, how many were, the sum."""
    places, count = np.empty(bins.counts[b], np.int32), 0
    for i in range(len(bins.places)):
        if bins.numbers[i] == b:
            places[count] = bins.places[i]
            count += 1
    _sort(scores, places)
    token, taken = UNRESOLVED, 0
    for place in places:
        if taken == most:
            break
        token, taken, before = place, taken + 1, before + weights[place]
        if before > target or (exactly and before == target):
            break
    return token, taken, before


@numba.njit(nogil=True, error_model="numpy")
def _sort(scores: Any, places: Any) -> None:
    """By their scores, the highest first, equal ones by their numbers."""
    for gap in GAPS:
        for i in range(gap, len(places)):
            place, at = places[i], i
            while at >= gap:
                other = places[at - gap]
                ahead = scores[other] > scores[place] or (scores[other] == scores[place] and other < place)
                if ahead:
                    break
                places[at] = other
                at -= gap
            places[at] = place
