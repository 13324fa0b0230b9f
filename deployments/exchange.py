"""One request and its response: the deadline over both, errors before and after the first token, and
everything closed however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from .api_errors import ApiError, to_api_error
from .completion import Trace
from .door import CLIENT_LEFT
from .log import log_exception
from .protocol import ChatCompletionRequest
from .service import Service
from .sse import Reply, collect, error_event, stream


class Exchange:
    """One request and its response, the deadline over both, and the books kept at the end."""

    def __init__(self, service: Service, body: ChatCompletionRequest, trace: Trace) -> None:
        self.service, self.body, self.trace = service, body, trace
        self.n = body.n or 1
        usage = bool(body.stream_options and body.stream_options.include_usage)
        self.reply = Reply(trace, service.model, bool(body.logprobs), usage)
        self.deadline = asyncio.get_running_loop().time() + service.completions.settings.request_seconds
        self.pieces = service.completions.run(body, trace)

    async def respond(self) -> Response:
        streaming = False
        try:
            async with asyncio.timeout_at(self.deadline):
                if not self.body.stream:
                    return JSONResponse((await collect(self.pieces, self.reply, self.n)).model_dump())
                events = stream(self.pieces, self.reply, self.n)
                # Two chunks: the role, then the first piece. What fails until then has a status.
                head = [await anext(events), await anext(events)]
            streaming = True
            self.trace.status = CLIENT_LEFT  # unless it is read to its end
            return _EventStream(self._events(head, events), self._close)
        except BaseException as error:
            raise self._failed(error) from error
        finally:
            if not streaming:
                await self._close()

    async def _events(self, head: list[str], events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        try:
            for chunk in head:
                yield chunk
            while True:
                async with asyncio.timeout_at(self.deadline):  # around our work, not the client's reading
                    next_chunk = await anext(events, None)
                if next_chunk is None:
                    self.trace.status = 200
                    return
                yield next_chunk
        except Exception as error:  # told in the stream: its status is sent already
            failure = self._failed(error)
            yield error_event(failure if isinstance(failure, ApiError) else ApiError(500, "the server failed"))
        finally:
            await events.aclose()

    def _failed(self, error: BaseException) -> BaseException:
        """What to raise instead; the trace learns the status."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.trace.status = CLIENT_LEFT
            return error
        known = to_api_error(error)
        self.trace.status = known.status_code if known else 500
        if known is None:
            log_exception("failed", request_id=self.trace.request_id)
        return known or ApiError(500, "the server failed on this request", code="internal_error")

    async def _close(self) -> None:
        try:
            await self.pieces.aclose()
        finally:
            self.service.leave(self.trace)


class _EventStream(StreamingResponse):
    """Closes what it streams however it ends: read to the end, broken off, or never begun."""

    def __init__(self, events: AsyncGenerator[str, None], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                await self._events.aclose()
            finally:
                await self._close()
