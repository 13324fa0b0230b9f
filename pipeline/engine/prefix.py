"""Names for blocks by what they hold, so that sequences that begin alike can share them.

A block's keys and values depend on everything up to its end: its name is a digest of the block before it, of its token
ids, and, where media stand, of what these were computed from and which of their rows stand where.
"""

from __future__ import annotations

import hashlib
from array import array

from .sequence import Sequence


def extend_names(sequence: Sequence, blocks: int, block_size: int) -> None:
    """Makes `sequence.names` name its first `blocks` blocks, all of whose tokens must be known; fewer where a medium of
    unknown origin stands."""
    for i in range(len(sequence.names), blocks):
        start, stop = i * block_size, (i + 1) * block_size
        assert stop <= sequence.length, "a block is named when it is full"
        digest = hashlib.blake2b(sequence.names[-1] if sequence.names else b"", digest_size=16)
        digest.update(array("q", sequence.tokens(start, stop)).tobytes())
        for span in sequence.prompt.spans:
            first, last = max(span.start, start), min(span.start + span.length, stop)
            if first < last:
                if span.key is None:
                    return
                digest.update(f" {span.key} {first - start} {last - first} {span.offset + first - span.start}".encode())
        sequence.names.append(digest.digest())
