"""OpenAI's wire format, as far as we speak it: requests checked strictly, responses as dicts' models.

https://platform.openai.com/docs/api-reference/chat. A field that we don't know, or know and can't
serve, is refused by name: nothing that a client sends is dropped silently.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, LiteralString

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config import GenerationDefaults
from pipeline.types import SamplingParams

MOST_MESSAGES, MOST_PARTS, MOST_ANSWERS = 10_000, 1000, 128
"""However much the settings allow: bounds of what is looked at before the settings are."""
MOST_STOPS, MOST_STOP_IDS, MOST_ALTERNATIVES = 16, 64, 20


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown_field(cls, data: Any) -> Any:
        """One is enough to refuse a request; pydantic would complain of a million, a few hundred bytes each."""
        if not isinstance(data, dict) or len(unknown := data.keys() - cls.model_fields.keys()) < 2:
            return data
        first = next(key for key in data if key in unknown)
        return {key: value for key, value in data.items() if key == first or key not in unknown}


class TextPart(_Wire):
    type: Literal["text"]
    text: str


class ImageUrl(_Wire):
    """`detail` is accepted and changes nothing: the model slices each picture by its size."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Wire):
    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(_Wire):
    """`data`: base64, or an http(s) URL where the server fetches media."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg"]


class AudioPart(_Wire):
    type: Literal["input_audio"]
    input_audio: InputAudio


UserPart = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class SystemMessage(_Wire):
    role: Literal["system", "developer"]
    content: str | Annotated[list[TextPart], Field(max_length=MOST_PARTS, fail_fast=True)]


class UserMessage(_Wire):
    role: Literal["user"]
    content: str | Annotated[list[UserPart], Field(max_length=MOST_PARTS, fail_fast=True)]


class AssistantMessage(_Wire):
    """An answer as our own responses have it; what it can't have must be null or empty."""

    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MOST_PARTS, fail_fast=True)]
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[str], Field(max_length=0)] | None = None
    annotations: Annotated[list[str], Field(max_length=0)] | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(_Wire):
    include_usage: bool = False


class ResponseFormat(_Wire):
    type: Literal["text"]


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _contradiction(param: str, message: LiteralString) -> PydanticCustomError:
    return PydanticCustomError("contradiction", message, {"param": param})


class ChatCompletionRequest(_Wire):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    seed: Int64 | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    # Beyond OpenAI, under vLLM's names:
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MOST_STOP_IDS)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        limit = self.token_limit
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise _contradiction("max_tokens", "max_tokens and max_completion_tokens differ; send one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise _contradiction("top_logprobs", "top_logprobs needs logprobs: true")
        if self.stream_options and not self.stream:
            raise _contradiction("stream_options", "stream_options needs stream: true")
        if "" in self.stop_strings:
            raise _contradiction("stop", "stop must not hold empty strings")
        if self.min_tokens and limit is not None and self.min_tokens > limit:
            raise _contradiction("min_tokens", "min_tokens is more than max_tokens")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, defaults: GenerationDefaults) -> SamplingParams:
        """What was sent, over the checkpoint's defaults. Without a limit max_tokens stays open."""

        def given(value: float | None, default: float) -> float:
            return default if value is None else value

        return SamplingParams(
            max_tokens=self.token_limit,
            temperature=given(self.temperature, defaults.temperature),
            top_p=given(self.top_p, defaults.top_p),
            top_k=max(int(given(self.top_k, defaults.top_k)), 0),
            min_p=given(self.min_p, 0.0),
            repetition_penalty=given(self.repetition_penalty, defaults.repetition_penalty),
            presence_penalty=given(self.presence_penalty, 0.0),
            frequency_penalty=given(self.frequency_penalty, 0.0),
            seed=self.seed,
            stop=self.stop_strings,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            min_tokens=self.min_tokens or 0,
            ignore_eos=bool(self.ignore_eos),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    error: ErrorBody


class PromptTokensDetails(BaseModel):
    cached_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(BaseModel):
    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprobs(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    content: list[TokenLogprobs]
    refusal: None = None


Finish = Literal["stop", "length"]


class ResponseMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class DeltaMessage(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: DeltaMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Finish | None = None


class ChatCompletionChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "megrez-serve"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class StageHealth(BaseModel):
    status: str
    running: int
    ready: bool


class Health(BaseModel):
    ready: bool
    stages: dict[str, StageHealth]
