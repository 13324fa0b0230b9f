"""What a media cache asks to encode, in its tests."""

from __future__ import annotations

import asyncio

from deployments.media_cache import EncodedMedia

from .fakes import encoded


class Encoder:
    """Counts what it is asked for; waits while `gate` is closed."""

    def __init__(self, *, nbytes: int = 100, error: Exception | None = None, open_: bool = True) -> None:
        self.nbytes, self.error = nbytes, error
        self.started = self.cancelled = 0
        self.gate = asyncio.Event()
        if open_:
            self.gate.set()

    async def __call__(self) -> EncodedMedia:
        self.started += 1
        number = self.started
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return encoded(number, self.nbytes)
