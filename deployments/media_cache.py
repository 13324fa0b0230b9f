"""References to embeds, by what they were computed from: a medium that comes back is encoded once.

Keys are digests of the bytes and of the processor's configuration, never anything a client names.
Simultaneous requests for one medium share its encoding, which goes on as long as somebody waits.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.types import EncodeStats

from .futures import mark_seen

Outcome = Literal["hit", "shared", "miss"]


@dataclass(frozen=True)
class EncodedMedia:
    """`ref` is a reference to PackedEmbeds in the object store, kept alive by being held."""

    ref: Any
    stats: EncodeStats
    seconds: float  # as the ingress saw it


@dataclass(eq=False)
class _Pending:
    task: asyncio.Task[EncodedMedia]
    waiters: int = 0


@dataclass(eq=False)
class MediaCache:
    """At most `max_bytes` of embeds are kept, least recently used first to go."""

    max_bytes: int
    _kept: OrderedDict[str, EncodedMedia] = field(default_factory=OrderedDict)
    _pending: dict[str, _Pending] = field(default_factory=dict)
    bytes: int = 0

    async def get(self, key: str, encode: Callable[[], Awaitable[EncodedMedia]]) -> tuple[EncodedMedia, Outcome]:
        """What `key` stands for, encoding it if it isn't here. An error is everybody's who waits."""
        if kept := self._kept.get(key):
            self._kept.move_to_end(key)
            return kept, "hit"
        pending = self._pending.get(key)
        outcome: Outcome = "miss" if pending is None else "shared"
        if pending is None:
            pending = self._pending[key] = _Pending(self._start(key, encode))
        pending.waiters += 1
        try:
            return await asyncio.shield(pending.task), outcome
        finally:
            pending.waiters -= 1
            if not pending.waiters and not pending.task.done():
                pending.task.cancel()
                self._drop(key, pending)

    def forget(self, key: str, ref: Any) -> None:
        """Drops a reference whose object is lost (unless it was replaced already)."""
        if (kept := self._kept.get(key)) and kept.ref is ref:
            self.bytes -= self._kept.pop(key).stats.nbytes

    def resize(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._evict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def encoding(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """Requests' media that wait for an encoding: more than `encoding`, where some share one."""
        return sum(pending.waiters for pending in self._pending.values())

    def _start(self, key: str, encode: Callable[[], Awaitable[EncodedMedia]]) -> asyncio.Task[EncodedMedia]:
        async def run() -> EncodedMedia:
            try:
                encoded = await encode()
                self._keep(key, encoded)
                return encoded
            finally:
                if (pending := self._pending.get(key)) and pending.task is asyncio.current_task():
                    del self._pending[key]

        # A context of its own: Serve cancels what a request started when its client leaves, but
        # this encoding may have become another request's, too.
        task = asyncio.get_running_loop().create_task(run(), context=contextvars.Context())
        task.add_done_callback(mark_seen)
        return task

    def _drop(self, key: str, pending: _Pending) -> None:
        if self._pending.get(key) is pending:
            del self._pending[key]

    def _keep(self, key: str, encoded: EncodedMedia) -> None:
        if encoded.stats.nbytes > self.max_bytes:  # it would drive everything else out, and then go itself
            return
        if old := self._kept.pop(key, None):
            self.bytes -= old.stats.nbytes
        self._kept[key] = encoded
        self.bytes += encoded.stats.nbytes
        self._evict()

    def _evict(self) -> None:
        while self.bytes > self.max_bytes and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.stats.nbytes
