"""Every way to fail -> an HTTP status and OpenAI's error object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors
from starlette.exceptions import HTTPException

from pipeline.errors import (
    ContextOverflow,
    GenerationFailed,
    InvalidMedia,
    InvalidRequest,
    MediaTooLarge,
    Overloaded,
)

from .protocol import ErrorBody, ErrorResponse

TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """An error as the client sees it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.body = ErrorResponse(error=ErrorBody(message=message, type=kind, param=param, code=code))


LOST = (ray_errors.ObjectLostError, ray_errors.ReferenceCountingAssertionError)
DIED = (ray_errors.RayActorError, serve_errors.ReplicaUnavailableError)


def root_cause(error: BaseException) -> BaseException:
    """What a stage raised, freed of Ray's wrapping."""
    while isinstance(error, ray_errors.RayTaskError) and error.cause is not None:
        error = error.cause
    return error


def to_api_error(error: BaseException) -> ApiError | None:
    """None for what is our own bug: it is logged and answered with a plain 500."""
    cause = root_cause(error)
    match cause:
        case ApiError():
            return cause
        case MediaTooLarge():
            return ApiError(413, cause.message, param=cause.param, code="media_too_large")
        case InvalidMedia():
            return ApiError(400, cause.message, param=cause.param, code="invalid_media")
        case ContextOverflow():
            return ApiError(400, cause.message, param=cause.param, code="context_length_exceeded")
        case InvalidRequest():
            return ApiError(400, cause.message, param=cause.param, code="invalid_value")
        case Overloaded():
            return ApiError(429, f"the server is busy: {cause}", code="overloaded", retry_after=1)
        case serve_errors.BackPressureError():
            return ApiError(429, "the server is busy: a stage's queue is full", code="overloaded", retry_after=1)
        case TimeoutError():
            return ApiError(504, "the request took longer than this server allows", code="timeout")
        case serve_errors.DeploymentUnavailableError():
            return ApiError(503, "a stage of the model is not available", code="not_ready", retry_after=5)
        case GenerationFailed():
            return ApiError(500, str(cause), code="generation_failed")
    if isinstance(cause, DIED):
        return ApiError(503, "a stage of the model went away; try again", code="stage_died", retry_after=1)
    return None


def validation_error(errors: Sequence[Any]) -> ApiError:
    """One of pydantic's complaints, as OpenAI would say it: the field is named.

    The deepest is the one to tell: where a field may be a string or a list, pydantic complains
    about the branch that wasn't meant, too.
    """
    first = max(errors, key=lambda error: len(error["loc"]))
    param = field_path([shortened(part) if isinstance(part, str) else part for part in first["loc"]])
    context = first.get("ctx") or {}
    kind = first["type"]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {context['error']}", code="invalid_json")
    if kind == "missing" and not param:
        return ApiError(400, "the body is empty; send a JSON object", code="missing")
    if kind == "extra_forbidden":
        return ApiError(400, f"unknown or unsupported field: {param}", param=param, code="unknown_field")
    if kind.startswith("union_tag"):  # the role of a message, the type of a part
        param = f"{param}.{context['discriminator'].strip(chr(39))}"
    complaint = shortened(str(first["msg"]), 500)  # it may quote what was sent
    message = f"{param}: {complaint}" if param else complaint
    return ApiError(400, message, param=context.get("param", param), code="invalid_value")


def shortened(text: str, limit: int = 100) -> str:
    """What a client sent, as an error may repeat it."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def field_path(location: Sequence[str | int]) -> str | None:
    """('body', 'messages', 0, 'user', 'content', 'list[tagged-union[…]]', 1, 'image_url', 'url') ->
    messages[0].content[1].url without the tags: pydantic puts the branch of each union into the path.
    """
    parts = location[1:] if location and location[0] == "body" else location
    path = ""
    for i, part in enumerate(parts):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (i and _is_branch(part, parts[:i])):
            path += f".{part}" if path else part
    return path or None


def _is_branch(part: str, before: Sequence[str | int]) -> bool:
    """Whether a part of pydantic's path names a union's branch instead of a field."""
    if isinstance(before[-1], int):  # behind an index: the tag, where the list holds tagged values
        return len(before) > 1 and (before[-2] == "messages" or str(before[-2]).startswith("list[tagged-union"))
    return part in ("str", "none") or part.startswith(("list[", "constrained-", "nullable["))
