"""Which stages can serve right now, as Serve's controller sees it; asked at most once a second."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from ray import serve

from .futures import mark_seen
from .log import log_exception
from .protocol import Health, StageHealth

MAX_AGE = 1.0  # seconds between two questions
PATIENCE = 3.0  # seconds for an answer
TRUSTED = 30.0  # seconds that an old answer holds while the controller is silent: stages serve without it


class Readiness:
    def __init__(self, app_name: str) -> None:
        self._app = app_name
        self._health = Health(ready=False, stages={})
        self._asked, self._answered = -MAX_AGE, -TRUSTED
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")  # it may wait for long; others must not
        self._question: asyncio.Future[Health] | None = None

    async def health(self) -> Health:
        async with self._lock:
            if time.monotonic() - self._asked >= MAX_AGE:
                try:
                    if self._question is None or self._question.done():  # one that nobody answers is not repeated
                        self._question = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
                        self._question.add_done_callback(mark_seen)
                    async with asyncio.timeout(PATIENCE):
                        self._health = await asyncio.shield(self._question)
                    self._answered = time.monotonic()
                except Exception:  # whatever keeps the controller from answering
                    log_exception("controller_silent")
                    if time.monotonic() - self._answered > TRUSTED:
                        self._health = Health(ready=False, stages={})
                self._asked = time.monotonic()
            return self._health

    async def missing(self, stages: set[str]) -> list[str]:
        """Those of `stages` that can't serve now."""
        known = (await self.health()).stages
        return sorted(name for name in stages if name not in known or not known[name].ready)

    def _ask(self) -> Health:
        app = serve.status().applications.get(self._app)
        stages = {}
        for name, deployment in (app.deployments if app else {}).items():
            running = sum(
                n for state, n in deployment.replica_states.items() if getattr(state, "value", state) == "RUNNING"
            )
            status = str(deployment.status.value)
            # A stage scaled to zero is healthy: its first request wakes it, and others wait for it, too.
            scales = deployment.status_trigger == "AUTOSCALING"
            asleep = status == "HEALTHY" or (scales and status in ("UPSCALING", "DOWNSCALING"))
            stages[name] = StageHealth(status=status, running=running, ready=running > 0 or asleep)
        return Health(ready=bool(stages) and all(stage.ready for stage in stages.values()), stages=stages)
