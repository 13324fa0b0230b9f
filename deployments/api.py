"""The HTTP routes: OpenAI's chat completions and models, health, documentation at /docs."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .api_errors import ApiError, shortened, validation_error
from .completion import Trace
from .door import ADMITTED, Door, error_response
from .exchange import Exchange
from .protocol import ChatCompletion, ChatCompletionRequest, ErrorResponse, Health, Model, ModelList
from .service import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        400: "The request can't be served as it is; `param` names the field.",
        401: "API keys are configured and none fits.",
        404: "No such model.",
        408: "The body took too long to arrive.",
        413: "The body or a medium is over its limit.",
        415: "The body has a Content-Encoding.",
        429: "A queue is full; Retry-After says when to come back.",
        500: "The server failed.",
        503: "A stage of the model is not ready.",
        504: "The request took longer than the server allows.",
    }.items()
}


def build_api(service: Service) -> FastAPI:
    api = FastAPI(title="Megrez Serve", version="0.1.0", redoc_url=None)
    api.add_middleware(Door, settings=lambda: service.completions.settings, refused=service.refused)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(Exception, _bug)

    @api.post(Service.COMPLETIONS, response_model=ChatCompletion, responses=ERRORS)
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        """Answers a conversation of text, pictures and sound; with `stream` as server-sent events."""
        _check_model(body.model, service.model)
        trace = Trace(_request_id(request), answers=body.n or 1)
        service.enter()
        request.scope[ADMITTED] = True
        return await Exchange(service, body, trace).respond()

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


def _check_model(name: str, served: str) -> None:
    if name != served:
        raise ApiError(
            404, f"no model {shortened(name)!r}; this server has {served!r}", param="model", code="model_not_found"
        )


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
