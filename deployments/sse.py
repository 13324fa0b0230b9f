"""Deltas -> OpenAI's responses: one JSON object, or chunks as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pipeline.types import Delta, LogprobText, TokenText

from .api_errors import ApiError
from .completion import Trace
from .protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    DeltaMessage,
    Finish,
    PromptTokensDetails,
    ResponseMessage,
    TokenLogprobs,
    TopLogprob,
    Usage,
)

DONE = "data: [DONE]\n\n"


@dataclass
class Reply:
    """What all parts of one response share."""

    trace: Trace
    model: str
    logprobs: bool
    include_usage: bool
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        return f"chatcmpl-{self.trace.request_id}"

    def usage(self) -> Usage:
        prompt, completion = self.trace.usage, self.trace.completion_tokens
        assert prompt is not None, "usage is known with the first piece"
        details = PromptTokensDetails(
            cached_tokens=prompt.cached_tokens, image_tokens=prompt.image_tokens, audio_tokens=prompt.audio_tokens
        )
        return Usage(
            prompt_tokens=prompt.prompt_tokens,
            completion_tokens=completion,
            total_tokens=prompt.prompt_tokens + completion,
            prompt_tokens_details=details,
        )

    def chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        chunk = ChatCompletionChunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)
        # With include_usage each chunk but the last carries a null, as OpenAI's do.
        return event(chunk, exclude=None if self.include_usage else {"usage"})

    def choices(self, deltas: list[Delta]) -> list[ChunkChoice]:
        return [
            ChunkChoice(
                index=delta.index,
                delta=DeltaMessage(content=delta.text) if delta.text else DeltaMessage(),
                logprobs=choice_logprobs(delta.logprobs) if self.logprobs else None,
                finish_reason=finish(delta),
            )
            for delta in deltas
        ]


def event(value: BaseModel, exclude: set[str] | None = None) -> str:
    return f"data: {value.model_dump_json(exclude=exclude)}\n\n"


async def stream(pieces: AsyncIterator[list[Delta]], reply: Reply, n: int) -> AsyncGenerator[str, None]:
    """Chunks of the response; raises what `pieces` raises."""
    roles = [ChunkChoice(index=i, delta=DeltaMessage(role="assistant", content="")) for i in range(n)]
    yield reply.chunk(roles)
    async for deltas in pieces:
        yield reply.chunk(reply.choices(deltas))
    if reply.include_usage:
        yield reply.chunk([], reply.usage())
    yield DONE


def error_event(error: ApiError) -> str:
    return event(error.body)


async def collect(pieces: AsyncIterator[list[Delta]], reply: Reply, n: int) -> ChatCompletion:
    """The response in one piece."""
    texts: list[list[str]] = [[] for _ in range(n)]
    logprobs: list[list[LogprobText]] = [[] for _ in range(n)]
    reasons: list[Finish] = ["stop"] * n
    async for deltas in pieces:
        for delta in deltas:
            texts[delta.index].append(delta.text)
            logprobs[delta.index] += delta.logprobs
            reasons[delta.index] = finish(delta) or reasons[delta.index]
    choices = [
        Choice(
            index=i,
            message=ResponseMessage(content="".join(texts[i])),
            logprobs=choice_logprobs(tuple(logprobs[i])) if reply.logprobs else None,
            finish_reason=reasons[i],
        )
        for i in range(n)
    ]
    return ChatCompletion(id=reply.id, created=reply.created, model=reply.model, choices=choices, usage=reply.usage())


def finish(delta: Delta) -> Finish | None:
    if delta.finish_reason is None:
        return None
    return "length" if delta.finish_reason == "length" else "stop"


def choice_logprobs(tokens: tuple[LogprobText, ...]) -> ChoiceLogprobs:
    return ChoiceLogprobs(
        content=[
            TokenLogprobs(**_token(token.chosen), top_logprobs=[TopLogprob(**_token(t)) for t in token.top])
            for token in tokens
        ]
    )


def _token(token: TokenText) -> dict[str, Any]:
    return {"token": token.text, "bytes": list(token.raw), "logprob": max(token.logprob, -9999.0)}
