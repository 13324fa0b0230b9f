"""Everything that YAML can set, typed and checked. Unknown keys are errors.

`AppArgs` are the builder's arguments: changing one restarts the replicas. The other classes are the
deployments' `user_config`: changing those reaches running replicas and keeps their processes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.engine.memory import CacheBudget
from pipeline.types import WeightStorage

from .log import log_event
from .protocol import MOST_ANSWERS, MOST_MESSAGES

PROJECT = Path(__file__).resolve().parent.parent

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=Settings)


def reread(kind: type[Kind], user_config: dict[str, Any], before: Kind | None) -> Kind:
    """A `user_config`, checked. Raises ValidationError, with which a replica that starts fails to; one that runs keeps
    what it had `before` and says so, since Ray stops a replica that raises here."""
    try:
        return kind.model_validate(user_config)
    except ValidationError as error:
        if before is None:
            raise
        log_event("settings_refused", level=logging.ERROR, settings=kind.__name__, error=str(error))
        return before


class EngineArgs(Settings):
    """Memory of the decoder. The KV cache has one budget: tokens, bytes, or a fraction of the memory that is free when
    the weights are loaded. One token of Megrez-3B-Omni takes 80 KiB in bfloat16, 160 in float32.

    Blocks of `block_size` tokens suit the attention kernel by default: 256 for flash-attn, 64 for the native one, else
    16. `max_context` is the longest prompt plus answer; by default what the checkpoint was trained for.
    With `prefix_caching` prompts that begin alike share what has been computed of them.
    """

    kv_cache_tokens: Count | None = None
    kv_cache_bytes: Count | None = None
    kv_cache_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    block_size: Count | None = None
    max_context: Count | None = None
    prefix_caching: bool = True

    @model_validator(mode="after")
    def _one_budget(self) -> EngineArgs:
        budgets = (self.kv_cache_tokens, self.kv_cache_bytes, self.kv_cache_fraction)
        if sum(budget is not None for budget in budgets) > 1:
            raise ValueError("give one of kv_cache_tokens, kv_cache_bytes and kv_cache_fraction; the others are null")
        return self

    @property
    def kv_cache(self) -> CacheBudget:
        tokens, nbytes, fraction = self.kv_cache_tokens, self.kv_cache_bytes, self.kv_cache_fraction
        if (tokens, nbytes, fraction) == (None, None, None):
            tokens = 32768
        return CacheBudget(tokens=tokens, nbytes=nbytes, fraction=fraction)


class AppArgs(Settings):
    """`checkpoint` is a directory in the released layout; a relative path starts at the project's
    folder. `model` is the name that clients send. `weights` is how the decoder keeps its weights on a CPU (it computes
    in `dtype`): auto is bfloat16 where the checkpoint's lose nothing by it, else float32; int8 loses a little.
    `cuda_graphs`: on a GPU with flash-attn the decoder's small kernels are compiled and its steps captured at the
    start; false starts sooner."""

    checkpoint: str
    model: str = "megrez-omni"
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "native", "torch", "flash"] = "auto"
    weights: WeightStorage = "auto"
    cuda_graphs: bool = True
    engine: EngineArgs = EngineArgs()

    @model_validator(mode="after")
    def _kernel_fits(self) -> AppArgs:
        if self.attention == "flash" and (self.dtype != "bfloat16" or self.device == "cpu"):
            raise ValueError("attention: flash needs dtype: bfloat16 and a CUDA device")
        native = self.device == "cpu" and self.dtype == "float32"
        if self.attention == "native" and not native:
            raise ValueError("attention: native needs dtype: float32 and device: cpu")
        if self.weights != "auto" and (not native or self.attention == "torch"):
            raise ValueError("weights other than auto need dtype: float32, device: cpu and attention: auto or native")
        return self

    @property
    def checkpoint_path(self) -> Path:
        path = Path(self.checkpoint).expanduser()
        return path if path.is_absolute() else PROJECT / path


class VisionSettings(Settings):
    """A batch holds at most `batch_slices` slices, of any requests."""

    batch_slices: Count = 16
    max_queued_slices: Count = 256
    max_pixels: Count = 40_000_000
    decode_threads: Count = 2
    torch_threads: Count = 1


class AudioSettings(Settings):
    """A batch holds at most `batch_seconds` seconds of sound, of any requests."""

    batch_seconds: Seconds = 120.0
    max_queued_seconds: Seconds = 3600.0
    max_seconds: Seconds = 300.0
    decode_threads: Count = 2
    torch_threads: Count = 1


class DecoderSettings(Settings):
    """A step computes at most `max_batch_tokens` tokens of at most `max_running` sequences, and while answers are under
    way as few of a prompt's as let it end within `step_ms` (null: it doesn't matter);
    `max_waiting` more may queue, and the next is refused (429). An answer whose length the client
    left open ends after `default_max_tokens` (null: where the context ends)."""

    max_batch_tokens: Count = 512
    step_ms: Annotated[float, Field(gt=0)] | None = 100.0
    max_running: Count = 16
    max_waiting: Count = 64
    default_max_tokens: Count | None = 1024
    torch_threads: Count = 2

    @model_validator(mode="after")
    def _one_token_each(self) -> DecoderSettings:
        if self.max_batch_tokens < self.max_running:
            raise ValueError("max_batch_tokens must be at least max_running: a decode step takes one token each")
        return self


class FetchSettings(Settings):
    """Pictures and sound by http(s) URL. Off by default: the server would connect to addresses
    that clients choose. Addresses that aren't public are refused unless `allow_private`."""

    enabled: bool = False
    max_bytes: Count = 20_000_000
    max_bytes_in_flight: Count = 1_000_000_000
    max_seconds: Seconds = 10.0
    max_redirects: Annotated[int, Field(ge=0)] = 3
    allow_private: bool = False


class IngressSettings(Settings):
    """The door. `api_keys` empty: everybody may enter. `media_cache_bytes` 0: no embeds are kept; requests that send
    the same medium at the same time still share its encoding."""

    api_keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_requests: Count = 256
    max_bytes_in_flight: Count = 1_000_000_000
    request_seconds: Seconds = 300.0
    body_seconds: Seconds = 60.0
    max_body_bytes: Count = 64_000_000
    max_messages: Annotated[int, Field(gt=0, le=MOST_MESSAGES)] = 1024
    max_media: Count = 16
    max_media_bytes: Count = 20_000_000
    max_text_characters: Count = 200_000
    max_answers: Annotated[int, Field(gt=0, le=MOST_ANSWERS)] = 8
    media_cache_bytes: Annotated[int, Field(ge=0)] = 256_000_000
    fetch: FetchSettings = FetchSettings()
