"""vLLM: its engine in this process, step by step."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}  # the latter in GB, on a CPU

import torch
import vllm
from pipe import serve
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.inputs import TokensPrompt


class Vllm:
    def load(self, model: str, threads: int, device: str, dtype: str, **options: Any) -> dict[str, Any]:
        """`device` is the one that this vLLM was built for."""
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
        arguments = EngineArgs(
            model=model,
            dtype=dtype,
            max_model_len=4096,
            max_num_seqs=32,
            enable_prefix_caching=False,
            disable_log_stats=True,
            **options,
        )
        self.engine = LLMEngine.from_engine_args(arguments)
        self.number = 0
        return {"vllm": vllm.__version__, "torch": torch.__version__, **options}

    def add(self, prompt: list[int], new: int) -> str:
        self.number += 1
        params = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True, detokenize=False)
        self.engine.add_request(str(self.number), TokensPrompt(prompt_token_ids=prompt), params)
        return str(self.number)

    def prefill(self, prompt: list[int]) -> list[int]:
        self.tokens: dict[str, list[int]] = {}
        self.ids = [self.add(prompt, 1)]
        while self.engine.has_unfinished_requests():
            self._step()
        return self.tokens[self.ids[0]]

    def start(self, prompts: list[list[int]]) -> None:
        self.tokens = {}
        self.ids = [self.add(prompt, 1000) for prompt in prompts]
        while len(self.tokens) < len(prompts):
            self._step()

    def steps(self, count: int) -> list[float]:
        return [self._step() for _ in range(count)]

    def finish(self) -> list[list[int]]:
        self.engine.abort_request(self.ids)
        while self.engine.has_unfinished_requests():
            self.engine.step()
        return [self.tokens[i] for i in self.ids]

    def _step(self) -> float:
        begin = time.perf_counter()
        for output in self.engine.step():
            self.tokens[output.request_id] = list(output.outputs[0].token_ids)
        return time.perf_counter() - begin


if __name__ == "__main__":
    serve(Vllm())
