from __future__ import annotations

from typing import Any

import pytest
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors
from ray.serve._private.common import DeploymentID

from deployments.api_errors import DIED, LOST, ApiError, field_path, root_cause, to_api_error, validation_error
from pipeline.errors import (
    Cancelled,
    CheckpointError,
    ContextOverflow,
    GenerationFailed,
    InvalidMedia,
    InvalidRequest,
    MediaTooLarge,
    Overloaded,
)

from .fakes import task_error

STAGE_ERRORS: list[tuple[Exception, int, str, str]] = [
    (MediaTooLarge("m", "p"), 413, "invalid_request_error", "media_too_large"),
    (InvalidMedia("m", "p"), 400, "invalid_request_error", "invalid_media"),
    (ContextOverflow("m", "p"), 400, "invalid_request_error", "context_length_exceeded"),
    (InvalidRequest("m", "p"), 400, "invalid_request_error", "invalid_value"),
    (Overloaded("the line is full"), 429, "rate_limit_error", "overloaded"),
    (serve_errors.BackPressureError(1, 1), 429, "rate_limit_error", "overloaded"),
    (TimeoutError(), 504, "server_error", "timeout"),
    (serve_errors.DeploymentUnavailableError(DeploymentID("d", "a")), 503, "server_error", "not_ready"),
    (GenerationFailed("NaN"), 500, "server_error", "generation_failed"),
    (ray_errors.ActorDiedError(), 503, "server_error", "stage_died"),
    (ray_errors.ActorUnavailableError("m", None), 503, "server_error", "stage_died"),
    (serve_errors.ReplicaUnavailableError("r"), 503, "server_error", "stage_died"),
]


def ids(value: Any) -> str | None:
    return type(value).__name__ if isinstance(value, Exception) else None


@pytest.mark.parametrize(("error", "status", "kind", "code"), STAGE_ERRORS, ids=ids)
@pytest.mark.parametrize("wraps", [0, 1, 2])
def test_stage_errors(error: Exception, status: int, kind: str, code: str, wraps: int) -> None:
    wrapped: Any = error
    for _ in range(wraps):
        wrapped = task_error(wrapped)
    known = to_api_error(wrapped)
    assert known is not None
    assert known.status_code == status
    assert (known.body.error.type, known.body.error.code) == (kind, code)
    # Ray's text holds tracebacks and addresses; none of it is a client's business.
    assert "Traceback" not in known.body.error.message
    assert "127.0.0.1" not in known.body.error.message
    if isinstance(error, InvalidRequest):
        assert (known.body.error.message, known.body.error.param) == ("m", "p")


@pytest.mark.parametrize(("error", "status", "kind", "code"), STAGE_ERRORS, ids=ids)
def test_retry_after(error: Exception, status: int, kind: str, code: str) -> None:
    known = to_api_error(error)
    assert known is not None
    assert (int((known.headers or {}).get("Retry-After", 0)) > 0) == (status in (429, 503))


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), MemoryError(), CheckpointError("x"), Cancelled("x")])
def test_our_bugs_are_nobodys_business(error: Exception) -> None:
    assert to_api_error(error) is None
    assert to_api_error(task_error(error)) is None


def test_api_error_stays_itself() -> None:
    error = ApiError(404, "m", param="p", code="c")
    assert to_api_error(error) is error


def test_unauthorized_says_how() -> None:
    error = ApiError(401, "m")
    assert error.body.error.type == "authentication_error"
    assert (error.headers or {})["WWW-Authenticate"] == "Bearer"


def test_root_cause() -> None:
    cause = InvalidMedia("m")
    assert root_cause(cause) is cause
    assert root_cause(task_error(cause)) is cause
    assert type(root_cause(task_error(task_error(cause)))) is InvalidMedia  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.ObjectLostError("ab", None, ""),
        ray_errors.OwnerDiedError("ab", None, ""),
        ray_errors.ObjectFetchTimedOutError("ab", None, ""),
        ray_errors.ReferenceCountingAssertionError("ab", None, ""),
    ],
    ids=ids,
)
def test_lost_objects_are_known(error: Exception) -> None:
    assert isinstance(root_cause(error), LOST)
    assert isinstance(root_cause(task_error(error)), LOST)
    assert not isinstance(error, DIED)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("body",), None),
        ((), None),
        (("body", "temperature"), "temperature"),
        (("body", "messages", 0), "messages[0]"),
        (("body", "messages", 1, "user", "content", "str"), "messages[1].content"),
        (
            (
                "body",
                "messages",
                1,
                "user",
                "content",
                "list[tagged-union[TextPart,ImagePart,AudioPart]]",
                2,
                "image_url",
                "image_url",
                "url",
            ),
            "messages[1].content[2].image_url.url",
        ),
        (("body", "stop", "list[str]", 1), "stop[1]"),
        (("body", "stop_token_ids", 0), "stop_token_ids[0]"),
        (("body", "str"), "str"),
        (("body", "none"), "none"),
    ],
)
def test_field_path(location: tuple[str | int, ...], path: str | None) -> None:
    assert field_path(location) == path


def test_the_deepest_complaint_is_told() -> None:
    errors = [
        {"loc": ("body", "messages", 0, "user", "content", "str"), "type": "string_type", "msg": "no string"},
        {
            "loc": (
                "body",
                "messages",
                0,
                "user",
                "content",
                "list[tagged-union[TextPart,ImagePart,AudioPart]]",
                0,
                "text",
                "text",
            ),
            "type": "string_type",
            "msg": "text it must be",
        },
    ]
    error = validation_error(errors).body.error
    assert error.param == "messages[0].content[0].text"
    assert error.message == "messages[0].content[0].text: text it must be"
