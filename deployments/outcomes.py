"""How calls of a stage ended: one log line each, and counters that add up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .log import log_event


class Outcomes:
    """`active` calls are under way; every started one ends as finished, failed or cancelled."""

    def __init__(self, event: str) -> None:
        self._event = event
        self.started = self.finished = self.failed = self.cancelled = 0

    @contextmanager
    def watch(self, request_id: str) -> Iterator[dict[str, Any]]:
        """Counts the call inside; what is put into the yielded dict stands in its log line."""
        self.started += 1
        begin, outcome = time.perf_counter(), "finished"
        fields: dict[str, Any] = {}
        try:
            yield fields
            self.finished += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            outcome = "cancelled"
            raise
        except BaseException as error:
            self.failed += 1
            outcome = type(error).__name__
            raise
        finally:
            seconds = time.perf_counter() - begin
            log_event(self._event, request_id=request_id, outcome=outcome, seconds=seconds, **fields)

    def counts(self) -> dict[str, float]:
        ended = self.finished + self.failed + self.cancelled
        return {
            "active": self.started - ended,
            "started": self.started,
            "finished": self.finished,
            "failed": self.failed,
            "cancelled": self.cancelled,
        }
