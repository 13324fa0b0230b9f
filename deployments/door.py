"""What happens before a request's body is read: the key is checked, the body's size is bounded."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_errors import ApiError
from .settings import IngressSettings

OPEN = ("/health", "/docs", "/docs/oauth2-redirect", "/openapi.json")
CLIENT_LEFT = 499  # nginx's word for it
ADMITTED = "megrez.admitted"
"""Set in the scope of a request whose books are kept further inside."""


class Door:
    """ASGI middleware. Keys guard everything but health and documentation; `refused` is told the
    path and the status of each request that got no further than the door."""

    def __init__(
        self, app: ASGIApp, settings: Callable[[], IngressSettings], refused: Callable[[str, int, str], None]
    ) -> None:
        self._app, self._settings, self._refused = app, settings, refused
        self._inside = 0  # requests under way, health and documentation aside
        self._in_flight = 0  # bytes of bodies that requests under way have sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))  # the application's route prefix
        status, seen, complete, counts = 500, 0, False, False
        body_deadline = asyncio.get_running_loop().time() + self._settings().body_seconds

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        async def counted() -> Message:
            """What really arrives; a client's Content-Length is only a claim."""
            nonlocal seen, complete
            if complete:  # what comes now is the client's leaving, whenever that is
                return await receive()
            try:
                async with asyncio.timeout_at(body_deadline):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, "the request's body took too long to arrive", code="timeout") from None
            complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            seen += size
            self._in_flight += size
            self._check_bytes(seen)
            return message

        try:
            if path not in OPEN:
                check_key(headers.get("authorization", ""), self._settings().api_keys)
                self._admit()
                counts = True
            if headers.get("content-encoding", "identity") != "identity":
                raise ApiError(415, "send the body as it is, without Content-Encoding", code="unsupported_encoding")
            length = headers.get("content-length", "")
            if length.isascii() and length.isdigit():
                self._check_bytes(int(length), int(length))
            await self._app(scope, counted, watched)
        except ApiError as error:
            await error_response(error)(scope, receive, watched)
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        finally:
            self._in_flight -= seen
            self._inside -= counts
            if status >= 400 and not scope.get(ADMITTED):
                self._refused(path, status, headers.get("x-request-id", ""))

    def _admit(self) -> None:
        """Raises ApiError when the house is full. Before the body is read: whoever sends slowly takes
        one of these places, and none of those that health checks need."""
        limit = self._settings().max_requests
        if self._inside >= limit:
            raise ApiError(429, f"{limit} requests are being served already", code="overloaded", retry_after=1)
        self._inside += 1

    def _check_bytes(self, body: int, coming: int = 0) -> None:
        """Raises ApiError when one body, or all of them together, are over their limit."""
        settings = self._settings()
        if body > settings.max_body_bytes:
            message = f"the request's body is larger than {settings.max_body_bytes:,} bytes"
            raise ApiError(413, message, code="body_too_large")
        if self._in_flight + coming > settings.max_bytes_in_flight:
            raise ApiError(429, "the server is busy: too many large requests", code="overloaded", retry_after=1)


def check_key(authorization: str, keys: tuple[str, ...]) -> None:
    """Raises ApiError 401 when keys are configured and none fits."""
    scheme, _, key = authorization.partition(" ")
    given = key.strip().encode() if scheme.lower() == "bearer" else b""
    # Every key is compared, in constant time: how long it takes tells nothing.
    fits = [hmac.compare_digest(given, known.encode()) for known in keys]
    if keys and not any(fits):
        message = "no API key was sent" if not given else "the API key is not valid"
        raise ApiError(401, f"{message}; send Authorization: Bearer KEY", code="invalid_api_key")


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body.model_dump(), error.status_code, headers=dict(error.headers or {}))
