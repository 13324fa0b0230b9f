"""Of work that may outlive who waits for it."""

from __future__ import annotations

import asyncio
from typing import Any


def mark_seen(future: asyncio.Future[Any]) -> None:
    """For `add_done_callback`: its error isn't complained of when nobody is left to raise it."""
    if not future.cancelled():
        future.exception()
