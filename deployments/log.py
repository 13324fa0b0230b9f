"""Log lines that people read and machines parse: an event's name, then its fields as JSON.

Ray Serve writes them to each replica's log file, with its own request id beside them.
"""

from __future__ import annotations

import json
import logging

_log = logging.getLogger("ray.serve")


def show_pipeline() -> None:
    """What `pipeline` has to say stands in the replica's log, too: Serve sets up none but its own logger."""
    if _log.handlers:
        pipeline = logging.getLogger("pipeline")
        pipeline.handlers, pipeline.propagate = list(_log.handlers), False
        pipeline.setLevel(_log.getEffectiveLevel())


def log_event(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """One line. Floats are seconds or rates; four digits are plenty."""
    tidy = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items() if v is not None}
    _log.log(level, "%s %s", event, json.dumps(tidy, ensure_ascii=False, default=str))


def log_exception(event: str, **fields: object) -> None:
    """The same, with the traceback of the exception being handled."""
    _log.exception("%s %s", event, json.dumps(fields, ensure_ascii=False, default=str))
