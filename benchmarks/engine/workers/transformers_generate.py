"""transformers' `generate`. Its steps are watched by a stopping criterion, which waits where the benchmark does."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
import transformers
from pipe import answer
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class Generate:
    """Same commands as in `pipe`; but `start` runs inside `generate`, and returns to it after each answer."""

    def __init__(self) -> None:
        self.answers = os.fdopen(int(sys.argv[1]), "w")

    def load(self, model: str, threads: int, device: str, dtype: str, **options: Any) -> dict[str, Any]:
        torch.set_num_threads(threads)
        kind = getattr(torch, dtype)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=kind, **options).eval().to(device)
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def generate(self, prompts: list[list[int]], new: int, watch: list[StoppingCriteria]) -> torch.Tensor:
        ids = torch.tensor(prompts, device=self.model.device)
        return self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
            stopping_criteria=StoppingCriteriaList(watch),
        )

    def serve(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            name, begin = command.pop("op"), time.perf_counter()
            if name == "load":
                result: Any = self.load(**command)
            elif name == "prefill":
                result = self.generate([command["prompt"]], 1, [])[0, -1:].tolist()
            else:
                assert name == "start", name
                self.begin = begin
                prompts = command["prompts"]
                out = self.generate(prompts, 1000, [Watch(self)])
                result, begin = out[:, len(prompts[0]) :].tolist(), time.perf_counter()
            answer(self.answers, {"seconds": time.perf_counter() - begin, "result": result})


class Watch(StoppingCriteria):
    """Called after each token."""

    def __init__(self, owner: Generate) -> None:
        self.owner, self.left, self.times = owner, 0, [owner.begin]
        self.first = True

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        if input_ids.is_cuda:
            torch.cuda.synchronize()  # the token is there when it can be read
        self.times.append(time.perf_counter())
        if self.first:
            self.first = False
            answer(self.owner.answers, {"seconds": self.times[-1] - self.times[0], "result": None})
        elif self.left > 1:
            self.left -= 1
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        else:
            steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
            answer(self.owner.answers, {"seconds": sum(steps), "result": steps})
        command = json.loads(sys.stdin.readline())
        ends = command["op"] == "finish"
        self.left, self.times = command.get("count", 0), [time.perf_counter()]
        return torch.full((len(input_ids),), ends, dtype=torch.bool, device=input_ids.device)


if __name__ == "__main__":
    Generate().serve()
