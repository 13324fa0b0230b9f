from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from deployments.log import log_event, log_exception, show_pipeline

from .fakes import logged


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    with logged() as records:
        yield records


def test_one_line_a_machine_can_read(lines: list[logging.LogRecord]) -> None:
    log_event("encoded", request_id="a\nb", seconds=1 / 3, tokens=4, missing=None, who="猫", odd={1})
    (record,) = lines
    event, _, fields = record.getMessage().partition(" ")
    assert event == "encoded"
    assert "\n" not in fields
    assert "猫" in fields
    assert json.loads(fields) == {"request_id": "a\nb", "seconds": 0.3333, "tokens": 4, "who": "猫", "odd": "{1}"}


def test_percent_signs_are_no_format(lines: list[logging.LogRecord]) -> None:
    log_event("completed", request_id="100%s")
    assert "100%s" in lines[0].getMessage()


def test_levels(lines: list[logging.LogRecord]) -> None:
    log_event("a")
    log_event("b", level=logging.WARNING)
    assert [record.levelname for record in lines] == ["INFO", "WARNING"]


def test_exceptions_bring_their_traceback(lines: list[logging.LogRecord]) -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        log_exception("failed", request_id="id")
    (record,) = lines
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a bug"
    assert record.getMessage() == 'failed {"request_id": "id"}'


def test_what_the_pipeline_says_stands_beside_it(
    lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = logging.getLogger("pipeline")
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(pipeline, name, getattr(pipeline, name))
    show_pipeline()
    logging.getLogger("pipeline.engine.memory").info("KV cache: %d blocks", 3)
    log_event("a")
    assert [record.getMessage() for record in lines] == ["KV cache: 3 blocks", "a {}"]
    assert lines[0].levelname == "INFO"
