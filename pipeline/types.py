"""The values that travel between stages. Frozen; shapes stand beside tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import InvalidRequest

if TYPE_CHECKING:
    import torch

Modality = Literal["image", "audio"]
Role = Literal["system", "user", "assistant"]
WeightStorage = Literal["auto", "float32", "bfloat16", "int8"]
"""How a decoder on the native kernels keeps its weights; it computes in float32. auto: bfloat16 where that loses
nothing, else float32."""

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True)
class ImageEmbeds:
    """One picture after the vision encoder.

    `embeds` is [slices, query_num, D]: the overview first, then the grid's slices row by row.
    `grid` is (columns, rows) of the slices after the overview, or None for a picture of one slice. `key` stands for
    what they were computed from, the file's bytes and the processor's configuration; None: it isn't known.
    """

    embeds: torch.Tensor
    grid: tuple[int, int] | None
    key: str | None = None

    @property
    def tokens(self) -> int:
        return self.embeds.shape[0] * self.embeds.shape[1]


@dataclass(frozen=True)
class AudioEmbeds:
    """One recording after the audio encoder.

    `embeds` is [sum(spans), D]. Each span is a stretch of at most 30 s: a begin vector, one
    embedding per 40 ms, an end vector. Longer recordings have several spans, in order of time. `key` as a picture's.
    """

    embeds: torch.Tensor
    spans: tuple[int, ...]
    key: str | None = None

    @property
    def tokens(self) -> int:
        return self.embeds.shape[0]


MediaEmbeds = ImageEmbeds | AudioEmbeds


@dataclass(frozen=True)
class Message:
    """One turn. `images` and `audios` are indices into the request's list of media.

    Text and media don't interleave: the model was trained on pictures, then recordings, then text.
    """

    role: Role
    text: str
    images: tuple[int, ...] = ()
    audios: tuple[int, ...] = ()


@dataclass(frozen=True)
class MediaSpan:
    """`length` prompt positions from `start` on are replaced by rows of medium number `media`,
    beginning at its row `offset` (rows counted over the flattened embeds). `key` is the medium's."""

    start: int
    length: int
    media: int
    offset: int
    key: str | None = None


@dataclass(frozen=True)
class Prompt:
    """Token ids with a placeholder id at each media position, and where the media stand."""

    token_ids: list[int]
    spans: tuple[MediaSpan, ...] = ()


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens. The names are OpenAI's, then vLLM's.

    temperature 0 is greedy. top_k 0, top_p 1 and min_p 0 filter nothing. Without a seed the engine
    draws one. `logprobs` is the number of alternatives to report at each token (None: no logprobs).
    `max_tokens` None means: what the context leaves.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None

    def validate(self) -> None:
        """Raises InvalidRequest naming the first value that makes no sense."""
        rules = {
            "temperature": 0 <= self.temperature < float("inf"),
            "top_k": self.top_k >= 0,
            "top_p": 0 <= self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": 0 < self.repetition_penalty < float("inf"),
            "presence_penalty": abs(self.presence_penalty) < float("inf"),
            "frequency_penalty": abs(self.frequency_penalty) < float("inf"),
            "min_tokens": self.min_tokens >= 0,
            "logprobs": self.logprobs is None or self.logprobs >= 0,
            "stop": "" not in self.stop,
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidRequest(f"{name} can't be {getattr(self, name)!r}", name)


@dataclass(frozen=True)
class TokenLogprob:
    """Natural-log probability of a token under the raw model distribution."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class SampledLogprobs:
    """The chosen token and the most probable alternatives, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class TokenText:
    """A token as text for the wire: `raw` holds its bytes, which may be part of a character."""

    text: str
    raw: bytes
    logprob: float


@dataclass(frozen=True)
class LogprobText:
    chosen: TokenText
    top: tuple[TokenText, ...]


@dataclass(frozen=True)
class PromptUsage:
    """Token counts of a prompt; media tokens are part of `prompt_tokens`, and so are those that were in the cache."""

    prompt_tokens: int
    image_tokens: int
    audio_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Delta:
    """A piece of answer number `index`: the text and the tokens since the last piece. The first says how many tokens of
    the prompt were in the cache."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[LogprobText, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None
    cached_tokens: int = 0


@dataclass(frozen=True)
class ChatRequest:
    """One request to the decoder stage: `n` answers to `messages`, whose media come beside it and have these keys;
    where nobody reads along (no `stream`), in two pieces."""

    messages: tuple[Message, ...]
    params: SamplingParams
    n: int = 1
    request_id: str = ""
    stream: bool = True
    media_keys: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class EncodeStats:
    """What an encoding cost. `units` are slices of a picture, seconds of a recording."""

    units: float
    seconds: float  # from decoded to encoded, the wait for the batch included
    batch_units: float  # of the batch that it ran in, its neighbours included
    tokens: int
    nbytes: int
    checkpoint: str = ""  # its fingerprint, where a served encoder gave it
