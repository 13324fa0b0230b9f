"""A worker's side of the benchmark: commands on standard input, answers on a pipe of their own, a JSON object a line.

An engine is a class with
    load(model, threads, **options) -> facts to print (versions and the like)
    prefill(prompt) -> token ids: the one token that follows
    start(prompts) -> None: from now on these sequences are under way, each with its first token
    steps(count) -> seconds of each step, in which every sequence gets a token
    finish() -> token ids of each sequence, its first token included
Prompts are lists of token ids. Sampling is greedy and no token ends a sequence.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import IO, Any


def serve(engine: Any) -> None:
    """Answers commands until standard input ends. The pipe's number is the first argument."""
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                reply = run(engine, command.pop("op"), command)
            except Exception as error:
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}"}
            answer(answers, reply)


def answer(answers: IO[str], reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def run(engine: Any, name: str, values: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    result = getattr(engine, name)(**values)
    return {"seconds": time.perf_counter() - begin, "result": result}
