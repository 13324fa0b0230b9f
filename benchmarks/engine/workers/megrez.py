"""This project's engine."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import torch
from pipe import serve

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model.decoder_stage import load_decoder
from pipeline.types import MediaSpan, Prompt, SamplingParams


class Megrez:
    def load(
        self, model: str, threads: int, device: str = "cpu", dtype: str = "float32", **options: Any
    ) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.model: Any = load_decoder(model, device=device, dtype=dtype, attention="auto", **options)[1]
        self.model.set_threads(threads)
        self.engine = self.new_engine()
        return {"megrez-serve": version("megrez-serve"), "torch": torch.__version__, **options}

    def new_engine(self, **changes: Any) -> Engine:
        """With a cache of its own, so that nothing is found in it that another workload has left."""
        sizes = {"kv_cache": CacheBudget(tokens=32 * 704), "max_batch_tokens": 512, "max_running": 32}
        if self.model.device.type == "cuda":
            sizes = {"kv_cache": CacheBudget(tokens=64 * 1024), "max_batch_tokens": 4096, "max_running": 64}
        settings: dict[str, Any] = sizes | changes
        return Engine(self.model, EngineConfig(**settings), [])

    def prefill(self, prompt: list[int]) -> list[int]:
        self.engine.add(Prompt(prompt), [], params(1))
        outputs = []
        while not self.engine.idle:
            outputs += self.engine.step()
        return [output.token_id for output in outputs if output.token_id is not None]

    def renew(self) -> None:
        """An engine whose cache is empty."""
        self.engine = self.new_engine()

    def start(self, prompts: list[list[int]], media_tokens: int = 0, renew: bool = True, **sampling: Any) -> None:
        """`media_tokens`: the first so many of each prompt are rows of a picture; equal prompts have equal pictures."""
        if renew:
            self.renew()
        self.ids = [self.add(prompt, media_tokens, **sampling) for prompt in prompts]
        self.tokens: dict[int, list[int]] = {i: [] for i in self.ids}
        while not all(self.tokens.values()):
            self._step()

    def add(self, prompt: list[int], media_tokens: int, new: int = 1000, **sampling: Any) -> int:
        if not media_tokens:
            return self.engine.add(Prompt(prompt), [], params(new, **sampling))
        key = str(prompt[:media_tokens])
        rows = self.model.embed(torch.tensor(prompt[:media_tokens], device=self.model.device)).cpu()
        return self.engine.add(
            Prompt(prompt, (MediaSpan(0, media_tokens, 0, 0, key),)), [rows], params(new, **sampling)
        )

    def steps(self, count: int) -> list[float]:
        return [self._step() for _ in range(count)]

    def finish(self) -> list[list[int]]:
        for i in self.ids:
            self.engine.finish(i, "abort")
        return [self.tokens[i] for i in self.ids]

    def bookkeeping(self, prompts: list[list[int]], count: int, sampling: dict[str, Any]) -> dict[str, list[float]]:
        """Seconds of each step, and those of them that the model computed."""
        self.start(prompts, **sampling)
        run, model = self.engine.runner.run, []

        def timed(chunks: Any) -> Any:
            begin = time.perf_counter()
            logits = run(chunks)
            model.append(time.perf_counter() - begin)
            return logits

        self.engine.runner.run = timed  # type: ignore[method-assign]
        return {"steps": self.steps(count), "model": model}

    def at_length(self, batch: int, length: int, count: int) -> list[float]:
        """Seconds of steps after contexts of `length` tokens, whose keys and values are made up: they cost no time."""
        self.engine = self.new_engine(kv_cache=CacheBudget(tokens=batch * (length + 512)), prefix_caching=False)
        for array in self.engine.runner.cache:
            array[:] = 0.01
        self.ids = [self.engine.add(Prompt([200 + i] * length), [], params(1000)) for i in range(batch)]
        self.tokens = {i: [] for i in self.ids}
        scheduler = self.engine.scheduler
        for sequence in list(scheduler.waiting):
            self.engine.blocks.extend(sequence, length)
            sequence.computed = length - 1
            scheduler.running.append(sequence)
        scheduler.waiting.clear()
        return self.steps(count)

    def disturbed(self, prompts: list[list[int]], long: list[int], count: int, slowdown: float) -> dict[str, Any]:
        """Seconds between tokens of streams alone, and while `long` is computed within `slowdown` times as much."""
        self.start(prompts)
        self.steps(20)
        alone = self.steps(count)
        self.engine.scheduler.budget.step_seconds = slowdown * sorted(alone)[count // 2]
        number = self.engine.add(Prompt(long), [], params(1))
        self.tokens[number] = []
        beside = []
        while not self.tokens[number]:
            beside.append(self._step())
        return {"alone": alone, "beside": beside}

    def repeated(self, prompt: list[int], media_tokens: int) -> list[float]:
        """Seconds to the first token, twice."""
        self.engine, seconds = self.new_engine(), []
        for _ in range(2):
            begin = time.perf_counter()
            self.add(prompt, media_tokens, new=1)
            while not self.engine.idle:
                self.engine.step()
            seconds.append(time.perf_counter() - begin)
        return seconds

    def _step(self) -> float:
        begin = time.perf_counter()
        for output in self.engine.step():
            assert output.token_id is not None, output.error
            self.tokens[output.sequence_id].append(output.token_id)
        return time.perf_counter() - begin


def params(max_tokens: int, temperature: float = 0.0, **sampling: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=temperature, ignore_eos=True, **sampling)


if __name__ == "__main__":
    serve(Megrez())
