"""The decoder stage without Ray: messages and embeds in, pieces of text out. Synchronous.

The engine speaks tokens; here they become text: stop strings, half characters, several answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .engine.engine import Engine, EngineConfig, TokenOutput
from .errors import CheckpointError
from .model.decoder_stage import load_decoder
from .processing.chat import build_prompt
from .processing.tokenizer import TextStream, Tokenizer
from .types import (
    Delta,
    FinishReason,
    LogprobText,
    MediaEmbeds,
    Message,
    Prompt,
    SampledLogprobs,
    SamplingParams,
    TokenLogprob,
    TokenText,
    WeightStorage,
)


class StopStrings:
    """Lets text through until one of the stop strings appears; holds back what may begin one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops, self._held = stops, ""

    def push(self, text: str, armed: bool = True) -> tuple[str, bool]:
        """(text that may be shown, whether a stop string was met: it and what follows are cut).

        While not `armed`, a whole stop string passes; one that has only begun may still be met.
        """
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found and armed:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown, False

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)


@dataclass(eq=False)
class Answer:
    """One answer in the making. `index` counts the answers of one request."""

    index: int
    params: SamplingParams
    stream: TextStream
    stops: StopStrings
    sequence_id: int = -1
    tokens: int = 0
    finish_reason: FinishReason | None = field(default=None)


class Generator:
    def __init__(self, tokenizer: Tokenizer, engine: Engine) -> None:
        self.tokenizer, self.engine = tokenizer, engine
        self._answers: dict[int, Answer] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        attention: str = "auto",
        weights: WeightStorage = "auto",
        cuda_graphs: bool = True,
        engine: EngineConfig | None = None,
    ) -> Generator:
        """Loads the language stage of a checkpoint: its tensors only. Raises CheckpointError."""
        tokenizer = Tokenizer(path)
        config, model = load_decoder(
            path, device=device, dtype=dtype, attention=attention, weights=weights, cuda_graphs=cuda_graphs
        )
        if tokenizer.vocab_size > config.decoder.vocab_size:
            raise CheckpointError(
                f"checkpoint {path}: the tokenizer has {tokenizer.vocab_size} tokens, "
                f"config.json only {config.decoder.vocab_size}"
            )
        eos = {tokenizer.special("turn_end"), tokenizer.special("eos"), *config.generation.eos_token_ids}
        return cls(tokenizer, Engine(model, engine or EngineConfig(), sorted(eos)))

    def prompt(self, messages: Sequence[Message], media: Sequence[MediaEmbeds]) -> Prompt:
        """Touches no state of the engine: safe to call from any thread."""
        return build_prompt(self.tokenizer, messages, media, max_tokens=self.engine.max_context)

    def add(self, prompt: Prompt, media: Sequence[MediaEmbeds], params: SamplingParams, n: int = 1) -> list[Answer]:
        """Queues `n` answers to one prompt: all of them or, on an error, none."""
        rows = [m.embeds.flatten(0, -2) for m in media]
        answers = [Answer(i, params, self.tokenizer.stream(), StopStrings(params.stop)) for i in range(n)]
        try:
            for answer in answers:
                answer.sequence_id = self.engine.add(prompt, rows, params, choice=answer.index)
                self._answers[answer.sequence_id] = answer
        except BaseException:
            self.abort(answers)
            raise
        return answers

    def abort(self, answers: Sequence[Answer]) -> None:
        """Frees everything that unfinished answers hold."""
        for answer in answers:
            if self._answers.pop(answer.sequence_id, None) is not None:
                self.engine.finish(answer.sequence_id, "abort")
                answer.finish_reason = "abort"

    @property
    def idle(self) -> bool:
        return self.engine.idle

    def step(self) -> list[tuple[Answer, Delta]]:
        """One step of the engine, as text. A finished answer's last delta has its finish reason."""
        return [(self._answers[o.sequence_id], self._delta(o)) for o in self.engine.step()]

    def _delta(self, output: TokenOutput) -> Delta:
        answer = self._answers[output.sequence_id]
        if output.token_id is None:
            return self._finish(answer, "error", "", error=output.error)
        answer.tokens += 1
        reason, text = output.finish_reason, ""
        if reason != "stop":  # a stop token is no part of the text
            text = answer.stream.push(output.token_id)
        text, stopped = answer.stops.push(text, armed=answer.tokens >= answer.params.min_tokens)
        if stopped:
            self.engine.finish(output.sequence_id, "stop")
            return self._finish(answer, "stop", text, output)
        if reason:
            rest = answer.stops.push(answer.stream.flush())[0] + answer.stops.flush()
            return self._finish(answer, reason, text + rest, output)
        logprobs = self._logprobs(output.logprobs)
        return Delta(answer.index, text, (output.token_id,), logprobs, cached_tokens=output.found)

    def _finish(
        self,
        answer: Answer,
        reason: FinishReason,
        text: str,
        output: TokenOutput | None = None,
        error: str | None = None,
    ) -> Delta:
        del self._answers[answer.sequence_id]
        answer.finish_reason = reason
        tokens = (output.token_id,) if output and output.token_id is not None else ()
        logprobs = self._logprobs(output.logprobs) if output and output.finish_reason != "stop" else ()
        found = output.found if output else 0
        return Delta(answer.index, text, tokens, logprobs, reason, error, cached_tokens=found)

    def _logprobs(self, sampled: SampledLogprobs | None) -> tuple[LogprobText, ...]:
        if sampled is None:
            return ()

        def text(token: TokenLogprob) -> TokenText:
            return TokenText(*self.tokenizer.token_text(token.token_id), token.logprob)

        return (LogprobText(text(sampled.chosen), tuple(text(t) for t in sampled.top)),)
