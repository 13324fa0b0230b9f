"""The HTTP routes: OpenAI's chat completions and models, health, documentation at /docs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from .api_errors import ApiError, to_api_error, validation_error
from .completion import Completions, Trace
from .door import ADMITTED, Door, error_response
from .log import log_event, log_exception
from .protocol import ChatCompletion, ChatCompletionRequest, ErrorResponse, Health, Model, ModelList
from .sse import Reply, collect, error_event, stream

COMPLETIONS = "/v1/chat/completions"

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        400: "The request can't be served as it is; `param` names the field.",
        401: "API keys are configured and none fits.",
        404: "No such model.",
        413: "The body or a medium is over its limit.",
        429: "A queue is full; Retry-After says when to come back.",
        500: "The server failed.",
        503: "A stage of the model is not ready.",
        504: "The request took longer than the server allows.",
    }.items()
}


class Service:
    """What the routes need: the completions, the name of the model, how many requests are in."""

    def __init__(self, completions: Completions, model: str) -> None:
        self.completions, self.model = completions, model
        self.created = int(time.time())
        self.active = 0

    def enter(self) -> None:
        limit = self.completions.settings.max_requests
        if self.active >= limit:
            raise ApiError(429, f"{limit} requests are being served already", code="overloaded", retry_after=1)
        self.active += 1
        self.completions.metrics.active.set(self.active)

    def refused(self, path: str, status: int, request_id: str) -> None:
        """A completion that was turned away before any work was done for it."""
        if path == COMPLETIONS:
            self.completions.metrics.requests.inc(tags={"status": str(status)})
            log_event("refused", request_id=request_id[:128], status=status)

    def leave(self, trace: Trace) -> None:
        self.active -= 1
        metrics = self.completions.metrics
        metrics.active.set(self.active)
        metrics.requests.inc(tags={"status": str(trace.status)})
        usage, tokens = trace.usage, trace.completion_tokens
        if usage:
            text = usage.prompt_tokens - usage.image_tokens - usage.audio_tokens
            kinds = {"text": text, "image": usage.image_tokens, "audio": usage.audio_tokens, "output": tokens}
            for kind, count in kinds.items():
                if count:
                    metrics.tokens.inc(count, tags={"kind": kind})
        ttft = tpot = None
        if trace.first_token and trace.last_token:
            ttft = trace.first_token - trace.begin
            metrics.ttft.observe(ttft)
            if tokens > 1:
                tpot = (trace.last_token - trace.first_token) / (tokens - 1)
                metrics.tpot.observe(tpot)
        log_event(
            "completed",
            request_id=trace.request_id,
            status=trace.status,
            images=trace.images,
            audios=trace.audios,
            prompt_tokens=usage.prompt_tokens if usage else None,
            image_tokens=usage.image_tokens if usage else None,
            audio_tokens=usage.audio_tokens if usage else None,
            completion_tokens=tokens,
            media_cache=trace.cache,
            fetch_seconds=trace.fetch_seconds,
            encode_seconds=trace.encode_seconds,
            ttft_seconds=ttft,
            tpot_seconds=tpot,
            seconds=time.perf_counter() - trace.begin,
        )


def build_api(service: Service) -> FastAPI:
    api = FastAPI(title="Megrez Serve", version="0.1.0", redoc_url=None)
    api.add_middleware(Door, settings=lambda: service.completions.settings, refused=service.refused)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(Exception, _bug)

    @api.post(COMPLETIONS, response_model=ChatCompletion, responses=ERRORS)
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        """Answers a conversation of text, pictures and sound; with `stream` as server-sent events."""
        _check_model(body.model, service.model)
        trace = Trace(_request_id(request))
        service.enter()
        request.scope[ADMITTED] = True
        return await _Exchange(service, body, trace).respond()

    @api.get("/v1/models", responses=_some(401))
    async def models() -> ModelList:
        """The one model that is served here."""
        return ModelList(data=[Model(id=service.model, created=service.created)])

    @api.get("/v1/models/{model:path}", responses=_some(401, 404))
    async def model(model: str) -> Model:
        """The model by its name."""
        _check_model(model, service.model)
        return Model(id=service.model, created=service.created)

    @api.get("/health", responses={503: {"model": Health, "description": "A stage is not ready."}})
    async def health(response: Response) -> Health:
        """Ready only when every stage is."""
        state = await service.completions.readiness.health()
        response.status_code = 200 if state.ready else 503
        return state

    _drop_422(api)
    return api


class _Exchange:
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
                    return
                yield next_chunk
        except (asyncio.CancelledError, GeneratorExit):
            self.trace.status = 499
            raise
        except Exception as error:  # told in the stream: its status is sent already
            failure = self._failed(error)
            yield error_event(failure if isinstance(failure, ApiError) else ApiError(500, "the server failed"))
        finally:
            await events.aclose()

    def _failed(self, error: BaseException) -> BaseException:
        """What to raise instead; the trace learns the status."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.trace.status = 499  # nginx's word for a client that left
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


def _check_model(name: str, served: str) -> None:
    if name != served:
        raise ApiError(404, f"no model {name!r}; this server has {served!r}", param="model", code="model_not_found")


def _request_id(request: Request) -> str:
    """Serve's proxy passes the client's id on, or makes one, and sends it back."""
    return request.headers.get("x-request-id", "")[:128] or uuid.uuid4().hex


def _some(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: ERRORS[status] for status in statuses}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not isinstance(error, ApiError):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        headers = error.headers
        error = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code=code)
        error.headers = {**(headers or {}), **(error.headers or {})}
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(validation_error(error.errors()))


async def _bug(request: Request, error: Exception) -> Response:
    return error_response(ApiError(500, "the server failed on this request", code="internal_error"))


def _drop_422(api: FastAPI) -> None:
    """FastAPI documents 422 for invalid bodies; we answer 400, as OpenAI does."""
    schema = api.openapi()
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
