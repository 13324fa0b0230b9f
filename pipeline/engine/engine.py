"""Continuous batching: sequences in, tokens out, one step at a time. Synchronous, not thread-safe.

The engine knows nothing of text. `step()` reads: schedule, run, sample, finish.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

import torch

from ..errors import ContextOverflow, GenerationFailed, InvalidRequest, MegrezError
from ..types import FinishReason, Prompt, SampledLogprobs, SamplingParams
from .blocks import BlockManager
from .memory import CacheBudget
from .runner import Model, Runner
from .sampler import Sample, Sampler
from .scheduler import Chunk, Scheduler
from .sequence import Sequence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of the engine.

    kv_cache: how large; block_size None: what suits the attention kernel;
    prefix_caching: prompts that begin alike share what has been computed;
    max_batch_tokens: tokens computed a step at most; step_seconds: what a step should take at most while answers
    are under way (None: it doesn't matter); max_running: sequences in a step;
    max_waiting: sequences queued beside as many; max_context: prompt plus answer of one sequence
    (None: what the checkpoint was trained for).
    """

    kv_cache: CacheBudget = field(default_factory=lambda: CacheBudget(tokens=16384))
    block_size: int | None = None
    prefix_caching: bool = True
    max_batch_tokens: int = 512
    step_seconds: float | None = None
    max_running: int = 32
    max_waiting: int = 256
    max_context: int | None = None


@dataclass(frozen=True)
class TokenOutput:
    """One token of a sequence; or, with `error`, its end without one. The first says how many of the prompt's tokens
    were `found` in the cache."""

    sequence_id: int
    token_id: int | None
    logprobs: SampledLogprobs | None = None
    finish_reason: FinishReason | None = None
    error: str | None = None
    found: int = 0


@dataclass(frozen=True)
class EngineStats:
    """`prompt_tokens` of sequences that have been admitted, `found_tokens` of them not computed, since they were in the
    cache."""

    running: int
    waiting: int
    blocks_used: int
    blocks_kept: int
    blocks_total: int
    prompt_tokens: int
    found_tokens: int
    preemptions: int
    steps: int
    last_batch: int


class Engine:
    def __init__(self, model: Model, config: EngineConfig, eos_ids: Ordered[int]) -> None:
        multiple = model.block_size_multiple
        block_size = model.block_size if config.block_size is None else config.block_size
        if block_size % multiple:
            raise MegrezError(f"block_size must be a multiple of {multiple} for this attention kernel")
        if config.max_batch_tokens < config.max_running:
            raise MegrezError("max_batch_tokens must be at least max_running: a decode step takes one token each")
        trained = model.config.max_position_embeddings
        if config.max_context is not None and config.max_context > trained:
            raise MegrezError(f"max_context {config.max_context} is over the checkpoint's {trained} positions")
        self.max_context = config.max_context or trained
        self.default_max_tokens: int | None = None  # for answers of open length; None: all the room
        self.eos_ids = frozenset(eos_ids)
        blocks = config.kv_cache.size(block_size, model.cache_bytes(block_size), model.device)
        self.blocks = BlockManager(blocks, block_size, sharing=config.prefix_caching)
        self.scheduler = Scheduler(
            self.blocks,
            max_batch_tokens=config.max_batch_tokens,
            max_running=config.max_running,
            max_waiting=config.max_waiting,
            step_seconds=config.step_seconds,
        )
        self.runner, self.sampler = Runner(model, self.blocks), Sampler(eos_ids)
        self._vocab, self._width = model.config.vocab_size, model.config.hidden_size
        if model.device.type == "cpu":
            self.sampler.warm_up(self._vocab)
        self._ids = itertools.count()
        self._alive: dict[int, Sequence] = {}
        self._steps, self._last_batch = 0, 0
        self._waited = True
        self._prompt_tokens, self._found_tokens = 0, 0
        self.failures = 0  # unexpected ones since the last step that went well

    def check(self, prompt_tokens: int, params: SamplingParams) -> int:
        """The answer's token limit. Raises ContextOverflow for what could never be served."""
        if params.max_tokens is not None and params.max_tokens < 1:
            raise InvalidRequest("max_tokens must be at least 1", "max_tokens")
        wanted = params.max_tokens
        room = self.max_context - prompt_tokens
        capacity = self.blocks.num_blocks * self.blocks.block_size
        if wanted is None:
            default = max(self.default_max_tokens, params.min_tokens) if self.default_max_tokens else room
            wanted = min(room, capacity - prompt_tokens, default)
        if params.min_tokens > max(wanted, 1):
            raise InvalidRequest(f"min_tokens is more than the {wanted} tokens that there can be", "min_tokens")
        if wanted > room or room < 1:
            raise ContextOverflow(
                f"the model's context is {self.max_context} tokens; the prompt has {prompt_tokens} and "
                f"{max(wanted, 1)} were asked for. Shorten the messages or the answer.",
                "messages" if room < 1 else "max_tokens",
            )
        if wanted < 1 or not self.blocks.can_ever_hold(prompt_tokens + wanted):
            raise ContextOverflow(
                f"{prompt_tokens} prompt tokens and {max(wanted, 1)} more don't fit into this server's "
                f"KV cache of {capacity} tokens",
                "messages",
            )
        return wanted

    def add(self, prompt: Prompt, media: Ordered[torch.Tensor], params: SamplingParams, choice: int = 0) -> int:
        """Queues a sequence and returns its id. `media` are flattened embeds [rows, D] each;
        `choice` tells apart the answers of one request. Raises InvalidRequest, Overloaded."""
        if not prompt.token_ids:
            raise InvalidRequest("the prompt is empty", "messages")
        params.validate()
        max_tokens = self.check(len(prompt.token_ids), params)
        if any(not 0 <= i < self._vocab for i in params.stop_token_ids):
            raise InvalidRequest(f"stop_token_ids must be from 0 to {self._vocab - 1}", "stop_token_ids")
        assert all(m.dim() == 2 and m.shape[1] == self._width for m in media), "media must be [rows, D]"
        seed = secrets.randbits(63) if params.seed is None else params.seed
        eos = frozenset() if params.ignore_eos else self.eos_ids
        sequence = Sequence(
            id=next(self._ids),
            prompt=prompt,
            params=params,
            max_tokens=max_tokens,
            seed_key=(seed, choice),
            stop_ids=eos | frozenset(params.stop_token_ids),
        )
        self.scheduler.add(sequence)
        self.runner.attach(sequence.id, media)
        self._alive[sequence.id] = sequence
        return sequence.id

    def finish(self, sequence_id: int, reason: FinishReason, *, forget: bool = False) -> bool:
        """Ends a sequence from outside (abort, a stop string). False if it has ended already. `forget`: what it has
        computed is not to be found by others."""
        sequence = self._alive.pop(sequence_id, None)
        if sequence is None:
            return False
        self.scheduler.finish(sequence, reason, forget=forget)
        self.runner.detach(sequence_id)
        return True

    @property
    def idle(self) -> bool:
        return self.scheduler.idle

    def step(self) -> list[TokenOutput]:
        """Computes one batch. Each sequence that reached its end says so exactly once."""
        chunks = self.scheduler.schedule()
        if not chunks:
            assert self.blocks.used == 0, "idle, but blocks are held"
            return []
        self._steps += 1
        self._last_batch = len(chunks)
        try:
            begin, decodes = time.perf_counter(), sum(chunk.decodes for chunk in chunks)
            outputs = self._run(chunks)
            prefill = sum(chunk.length for chunk in chunks) - decodes
            # The host waits for a GPU when it asks for tokens: for this step, and for those before that had none.
            waited = self.runner.device.type == "cpu" or bool(outputs)
            if waited and self._waited:
                self.scheduler.budget.observe(decodes, prefill, time.perf_counter() - begin)
            self._waited = waited
            return outputs
        except Exception as error:  # one of them broke the batch: find out which
            log.exception("a step over %d sequences failed", len(chunks))
            if len(chunks) == 1:
                return [self._fail(chunks[0].sequence, error)]
            return [output for chunk in chunks for output in self._run_alone(chunk)]

    def logits(self, prompt: Prompt, media: Ordered[torch.Tensor]) -> torch.Tensor:
        """Logits at every position of a prompt, float32 [T, vocab]. Only while nothing else runs."""
        if not self.idle:
            raise MegrezError("logits() needs the cache for itself; other sequences are running")
        length = len(prompt.token_ids)
        if not 0 < length <= self.max_context or not self.blocks.can_ever_hold(length):
            raise ContextOverflow(f"a prompt of {length} tokens doesn't fit into the context or the KV cache")
        sequence = Sequence(-1, prompt, SamplingParams(), 0, (0, 0), frozenset())
        self.runner.attach(sequence.id, media)
        self.blocks.extend(sequence, sequence.length)
        try:
            return self.runner.all_logits(Chunk(sequence, 0, sequence.length))
        finally:
            self.runner.detach(sequence.id)
            self.blocks.release(sequence)

    @property
    def stats(self) -> EngineStats:
        s = self.scheduler
        return EngineStats(
            running=len(s.running),
            waiting=len(s.waiting),
            blocks_used=self.blocks.used,
            blocks_kept=self.blocks.kept,
            blocks_total=self.blocks.num_blocks,
            prompt_tokens=self._prompt_tokens,
            found_tokens=self._found_tokens,
            preemptions=s.preemptions,
            steps=self._steps,
            last_batch=self._last_batch,
        )

    def _run(self, chunks: list[Chunk]) -> list[TokenOutput]:
        sampling = [chunk.sequence for chunk in chunks if chunk.samples]
        logits = self.runner.run(chunks)
        self.failures = 0
        for chunk in chunks:
            chunk.sequence.computed = chunk.stop
            self.blocks.fill(chunk.sequence, chunk.start, chunk.stop)
        return self._sample(sampling, logits) if sampling else []

    def _run_alone(self, chunk: Chunk) -> list[TokenOutput]:
        """A chunk again, without neighbours; computing it twice writes the same keys and values."""
        try:
            return self._run([chunk])
        except Exception as error:
            return [self._fail(chunk.sequence, error)]

    def _fail(self, sequence: Sequence, error: Exception) -> TokenOutput:
        unexpected = not isinstance(error, MegrezError)  # not this sequence's fault, then
        log.error("sequence %d failed: %r", sequence.id, error, exc_info=error if unexpected else None)
        self.failures += unexpected
        self.finish(sequence.id, "error", forget=True)
        message = "the model failed on this request" if unexpected else str(error)
        return TokenOutput(sequence.id, None, None, "error", message)

    def _sample(self, sequences: list[Sequence], logits: torch.Tensor) -> list[TokenOutput]:
        try:
            samples = self.sampler.sample(logits, sequences)
        except Exception as error:
            if len(sequences) == 1:
                return [self._fail(sequences[0], error)]
            rows = zip(sequences, logits.split(1), strict=True)
            return [output for sequence, row in rows for output in self._sample([sequence], row)]
        return [self._said(*pair) for pair in zip(sequences, samples, strict=True)]

    def _said(self, sequence: Sequence, sample: Sample | GenerationFailed) -> TokenOutput:
        if isinstance(sample, GenerationFailed):
            return self._fail(sequence, sample)
        sequence.output.append(sample.token_id)
        reason = sequence.finished_by(sample.token_id)
        if reason:
            self.finish(sequence.id, reason)
        first = len(sequence.output) == 1
        if first:
            self._prompt_tokens += len(sequence.prompt.token_ids)
            self._found_tokens += sequence.found
        found = sequence.found if first else 0
        return TokenOutput(sequence.id, sample.token_id, sample.logprobs, reason, found=found)
