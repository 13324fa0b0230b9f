"""llama.cpp through llama-cpp-python's low-level calls: batches of several sequences, greedy."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import llama_cpp
import numpy as np
from pipe import serve


class LlamaCpp:
    def load(self, model: str, threads: int, **_: Any) -> dict[str, Any]:
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), options)
        assert self.model, f"{model} can't be loaded"
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = 32 * 704, 2048, 512
        context.n_seq_max, context.n_threads, context.n_threads_batch = 32, threads, threads
        context.kv_unified = False
        context.type_k = context.type_v = llama_cpp.GGML_TYPE_F32
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        assert self.context, "no context"
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(2048, 0, 1)
        return {"llama-cpp-python": llama_cpp.__version__}

    def prefill(self, prompt: list[int]) -> list[int]:
        self.clear()
        return [self.read(0, prompt)]

    def start(self, prompts: list[list[int]]) -> None:
        self.clear()
        self.tokens = [[self.read(i, prompt)] for i, prompt in enumerate(prompts)]
        self.positions = [len(prompt) for prompt in prompts]

    def steps(self, count: int) -> list[float]:
        return [self.step() for _ in range(count)]

    def finish(self) -> list[list[int]]:
        self.clear()
        return self.tokens

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def read(self, sequence: int, prompt: list[int]) -> int:
        last = len(prompt) - 1
        self.fill([(token, at, sequence, at == last) for at, token in enumerate(prompt)])
        return self.best(last)

    def step(self) -> float:
        begin = time.perf_counter()
        rows = [(t[-1], p, i, True) for i, (t, p) in enumerate(zip(self.tokens, self.positions, strict=True))]
        self.fill(rows)
        for i, tokens in enumerate(self.tokens):
            tokens.append(self.best(i))
            self.positions[i] += 1
        return time.perf_counter() - begin

    def fill(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        status = llama_cpp.llama_decode(self.context, batch)
        assert status == 0, f"llama_decode: {status}"

    def best(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self.context, row)
        address = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return int(np.argmax(np.ctypeslib.as_array(address, (self.vocab,))))


if __name__ == "__main__":
    serve(LlamaCpp())
