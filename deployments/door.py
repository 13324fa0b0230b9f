"""What happens before a request's body is read: the key is checked, the body's size is bounded."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_errors import ApiError
from .settings import IngressSettings

OPEN = ("/health", "/docs", "/docs/oauth2-redirect", "/openapi.json")
ADMITTED = "megrez.admitted"
"""Set in the scope of a request whose books are kept further inside."""


class Door:
    """ASGI middleware. Keys guard everything but health and documentation; `refused` is told the
    path and the status of each request that got no further than the door."""

    def __init__(
        self, app: ASGIApp, settings: Callable[[], IngressSettings], refused: Callable[[str, int, str], None]
    ) -> None:
        self._app, self._settings, self._refused = app, settings, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings, headers = self._settings(), Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))  # the application's route prefix
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if path not in OPEN:
                check_key(headers.get("authorization", ""), settings.api_keys)
            check_length(headers.get("content-length"), settings.max_body_bytes)
            await self._app(scope, limit_body(receive, settings.max_body_bytes), watched)
        except ApiError as error:
            await error_response(error)(scope, receive, watched)
        finally:
            if status >= 400 and not scope.get(ADMITTED):
                self._refused(path, status, headers.get("x-request-id", ""))


def check_key(authorization: str, keys: tuple[str, ...]) -> None:
    """Raises ApiError 401 when keys are configured and none fits."""
    scheme, _, key = authorization.partition(" ")
    given = key.strip().encode() if scheme.lower() == "bearer" else b""
    # Every key is compared, in constant time: how long it takes tells nothing.
    fits = [hmac.compare_digest(given, known.encode()) for known in keys]
    if keys and not any(fits):
        message = "no API key was sent" if not given else "the API key is not valid"
        raise ApiError(401, f"{message}; send Authorization: Bearer KEY", code="invalid_api_key")


def check_length(length: str | None, limit: int) -> None:
    if length is not None and length.isascii() and length.isdigit() and int(length) > limit:
        raise _too_large(limit)


def limit_body(receive: Receive, limit: int) -> Receive:
    """Counts what really arrives; a client's Content-Length is only a claim."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
        return message

    return counted


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body.model_dump(), error.status_code, headers=dict(error.headers or {}))


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request's body is larger than {limit:,} bytes", code="body_too_large")
