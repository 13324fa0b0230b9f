"""What is measured of this project's engine alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pipeline.config import DecoderConfig

from .process import Worker
from .roofline import Machine, decode
from .tables import OURS, Row, timed
from .workloads import random_prompts

TABLE = "The engine beside itself"
IMAGE_TOKENS, TEXT_TOKENS = 448, 128


def bookkeeping(worker: Worker, vocab: int) -> list[Row]:
    """What of a step of 8 sequences isn't the model's: greedy ones, and ones whose tokens are drawn."""
    rows = []
    for kind, sampling in (("", {}), (", tokens drawn", {"temperature": 0.8, "top_p": 0.95, "seed": 1})):
        prompts = random_prompts(8, 512, vocab, seed=1)
        found = worker.call("bookkeeping", prompts=prompts, count=60, sampling=sampling).result
        worker.call("finish")
        share = statistics.median(1 - model / step for step, model in zip(found["steps"], found["model"], strict=True))
        note = f"scheduling, sampling and bookkeeping, of a step of 8 sequences{kind}"
        rows.append(Row(TABLE, note, OURS, 100 * share, "%", goal="≤ 5%", reached=share <= 0.05))
    return rows


def growth(
    worker: Worker,
    config: DecoderConfig,
    machine: Machine,
    size: float = 4.0,
    lengths: Sequence[int] = (256, 512, 1024, 2048, 4096),
) -> list[Row]:
    """Steps of 8 sequences as their contexts grow; `size` in bytes of a weight and of a number in the cache."""
    rows = []
    for length in (n for n in lengths if n + 64 <= config.max_position_embeddings):
        seconds = worker.call("at_length", batch=8, length=length, count=12).result[2:]
        worker.call("finish")
        workload = f"a step of 8 sequences of {length} tokens"
        rows.append(timed(TABLE, workload, OURS, seconds, decode(config, 8, length, size, size).seconds(machine)))
    return rows


def disturbance(worker: Worker, vocab: int, tokens: int = 3500, count: int = 200) -> list[Row]:
    """The 99th percentile of the time between tokens, of `count` steps alone and of those beside a long prompt."""
    streams, (long,) = random_prompts(4, 256, vocab, seed=2), random_prompts(1, tokens, vocab, seed=3)
    found = worker.call("disturbed", prompts=streams, long=long, count=count, slowdown=1.5).result
    worker.call("finish")
    alone, beside = sorted(found["alone"]), sorted(found["beside"])
    median, before, p99 = statistics.median(alone), _percentile(alone, 0.99), _percentile(beside, 0.99)
    return [
        Row(TABLE, "between tokens of 4 streams", OURS, median * 1e3, "ms"),
        Row(TABLE, "p99 of it", OURS, before * 1e3, "ms"),
        Row(TABLE, f"p99, beside a prompt of {tokens}", OURS, p99 * 1e3, "ms", goal="≤ 2×", reached=p99 <= 2 * before),
        Row(TABLE, f"until that prompt's first token ({len(beside)} steps)", OURS, sum(beside) * 1e3, "ms"),
    ]


def _percentile(rising: Sequence[float], share: float) -> float:
    return rising[min(int(share * len(rising)), len(rising) - 1)]


def repetition(worker: Worker, vocab: int, rounds: int) -> list[Row]:
    """The time to the first token of a prompt with a picture, and of the same again."""
    first, again = [], []
    for number in range(rounds + 1):
        (prompt,) = random_prompts(1, IMAGE_TOKENS + TEXT_TOKENS, vocab, seed=100 + number)
        seconds = worker.call("repeated", prompt=prompt, media_tokens=IMAGE_TOKENS).result
        if number:
            first.append(seconds[0])
            again.append(seconds[1])
    a, b = statistics.median(first), statistics.median(again)
    return [
        Row(TABLE, "first token after a picture's embeds and a question", OURS, a * 1e3, "ms"),
        Row(TABLE, "the same again", OURS, b * 1e3, "ms", goal="≤ 0.15 of it", reached=b <= 0.15 * a),
    ]
