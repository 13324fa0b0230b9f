"""transformers' continuous batching, its loop taken step by step."""

from __future__ import annotations

import queue
import time
from typing import Any

import torch
import transformers
from pipe import serve
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

CACHE_TOKENS, STEP_TOKENS = {"cpu": 32 * 704, "cuda": 64 * 1024}, {"cpu": 512, "cuda": 4096}
ENOUGH = 10.0  # seconds of steps, in a round


class Batching:
    def load(self, model: str, threads: int, device: str, dtype: str, **options: Any) -> dict[str, Any]:
        torch.set_num_threads(threads)
        kind = getattr(torch, dtype)
        network = AutoModelForCausalLM.from_pretrained(model, dtype=kind, **options).eval().to(device)
        generation = GenerationConfig(max_new_tokens=1000, do_sample=False, eos_token_id=-1, pad_token_id=0)
        sizes = ContinuousBatchingConfig(
            page_size=32,
            num_blocks=CACHE_TOKENS[device] // 32,
            max_batch_tokens=STEP_TOKENS[device],
            allow_block_sharing=False,
        )
        self.manager = network.init_continuous_batching(generation, sizes)
        self.processor = self.manager.batch_processor = self.manager._create_batch_processor()
        self.manager.current_batch = 0
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def prefill(self, prompt: list[int]) -> list[int]:
        self.start([prompt])
        return self.finish()[0]

    def start(self, prompts: list[list[int]]) -> None:
        self.tokens: dict[str, list[int]] = {}
        for prompt in prompts:
            name = self.manager.add_request(prompt, streaming=True)
            assert name is not None
            self.tokens[name] = []
        while not all(self.tokens.values()):
            self._step()

    def steps(self, count: int) -> list[float]:
        """Fewer where they take long: their median is told as well by ten seconds of them."""
        taken: list[float] = []
        while len(taken) < count and sum(taken) < ENOUGH:
            taken.append(self._step())
        return taken

    def finish(self) -> list[list[int]]:
        found = list(self.tokens.values())
        for name in self.tokens:
            self.manager.cancel_request(name)
        with torch.inference_mode():
            self.processor.prepare_next_batch()  # where the cancelled are let go
        return found

    @torch.inference_mode()
    def _step(self) -> float:
        begin = time.perf_counter()
        self.manager._generation_loop_body(self.processor, bootstrapping=False)
        while True:
            try:
                output = self.manager.output_router.output_queue.get_nowait()
            except queue.Empty:
                return time.perf_counter() - begin
            assert output.error is None, output.error
            self.tokens[output.request_id] = list(output.generated_tokens)


if __name__ == "__main__":
    serve(Batching())
