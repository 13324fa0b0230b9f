"""How fast a running server answers requests with a picture, as Megrez-3B-Omni's authors measured theirs.

    python -m benchmarks.speed --base-url http://127.0.0.1:8000/v1

Requests come in waves: so many at once, and the next when all have been answered. In a wave the server first reads
(until each answer has begun) and then writes, and each has its speed. The defaults are the authors' workload: a picture
of 720 x 1480 and 128 tokens of text in, 128 tokens out, 8 at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from openai import AsyncOpenAI, OpenAIError
from PIL import Image
from tqdm import tqdm

from .client import served_model


@dataclass(frozen=True)
class Timed:
    """One answer: seconds from the wave's start to its first text and to its end, and the tokens in and out."""

    first: float
    last: float
    prompt: int
    answer: int


@dataclass(frozen=True)
class Wave:
    answers: list[Timed]

    @property
    def reading(self) -> float:
        """Tokens of all prompts, a second until the last answer has begun."""
        return sum(a.prompt for a in self.answers) / max(a.first for a in self.answers)

    @property
    def writing(self) -> float:
        """Tokens that follow the first ones, a second from there to the end."""
        begun, ended = max(a.first for a in self.answers), max(a.last for a in self.answers)
        return sum(a.answer - 1 for a in self.answers) / (ended - begun)

    @property
    def whole(self) -> float:
        """Tokens of answers, a second of the wave."""
        return sum(a.answer for a in self.answers) / max(a.last for a in self.answers)


def picture(width: int, height: int, rng: random.Random) -> str:
    """A data URL of a JPEG unlike any other: what has been encoded before is not encoded again."""
    coarse = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def request(args: argparse.Namespace, rng: random.Random) -> dict[str, Any]:
    text = " ".join(str(rng.randrange(10)) for _ in range(args.words))
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if args.picture:
        width, height = args.picture
        parts.append({"type": "image_url", "image_url": {"url": picture(width, height, rng)}})
    return {"messages": [{"role": "user", "content": parts}]}


async def answer(client: AsyncOpenAI, model: str, asked: dict[str, Any], tokens: int, begin: float) -> Timed:
    stream = await client.chat.completions.create(
        model=model,
        messages=asked["messages"],
        max_tokens=tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True, "repetition_penalty": 1.0},
    )
    first, usage = 0.0, None
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - begin
        usage = chunk.usage or usage
    if usage is None or not first:
        raise ValueError("the server streamed no text, or no usage after it")
    return Timed(first, time.perf_counter() - begin, usage.prompt_tokens, usage.completion_tokens)


async def measure(args: argparse.Namespace, client: AsyncOpenAI, model: str) -> list[Wave]:
    rng, waves = random.Random(args.seed), []
    same = request(args, rng)
    for number in tqdm(range(args.warm_up + args.waves), desc="waves", file=sys.stderr):
        asked = [same if args.identical else request(args, rng) for _ in range(args.concurrency)]
        begin = time.perf_counter()
        wave = Wave(await asyncio.gather(*(answer(client, model, a, args.tokens, begin) for a in asked)))
        if number >= args.warm_up:
            waves.append(wave)
    return waves


def table(waves: Sequence[Wave]) -> str:
    answers = [answer for wave in waves for answer in wave.answers]
    rows: list[tuple[str, list[float], str]] = [
        ("tokens in a second, until the last answer of a wave begins", [w.reading for w in waves], "{:,.0f}"),
        ("tokens out a second, from there on", [w.writing for w in waves], "{:,.0f}"),
        ("tokens out a second, of the whole wave", [w.whole for w in waves], "{:,.0f}"),
        ("ms to the first token", [1e3 * a.first for a in answers], "{:,.1f}"),
        ("ms between tokens", [1e3 * (a.last - a.first) / max(a.answer - 1, 1) for a in answers], "{:.2f}"),
        ("tokens of a prompt", [a.prompt for a in answers], "{:,.0f}"),
        ("tokens of an answer", [a.answer for a in answers], "{:,.0f}"),
    ]
    lines = ["| | median | lowest | highest |", "| --- | --- | --- | --- |"]
    for name, values, form in rows:
        shown = (form.format(v) for v in (statistics.median(values), min(values), max(values)))
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--base-url", default="http://127.0.0.1:8000/v1")
    add("--api-key", default="none")
    add("--model", help="default: the first that the server lists")
    add("--concurrency", type=int, default=8)
    add("--waves", type=int, default=13)
    add("--warm-up", type=int, default=2, help="waves before those that count")
    add("--picture", type=int, nargs="*", default=[720, 1480], metavar="PIXELS", help="width and height; empty: none")
    add("--words", type=int, default=56, help="digits of the text, about two tokens each")
    add("--tokens", type=int, default=128, help="of an answer")
    add("--identical", action="store_true", help="the same request each time, as the authors did")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if len(args.picture) not in (0, 2):
        parser.error("--picture wants a width and a height, or nothing")
    try:
        asyncio.run(_run(args))
    except (OpenAIError, ValueError) as error:
        raise SystemExit(f"{args.base_url}: {error}") from None


async def _run(args: argparse.Namespace) -> None:
    async with AsyncOpenAI(base_url=args.base_url, api_key=args.api_key, max_retries=0) as client:
        model = args.model or await served_model(client)
        print(table(await measure(args, client, model)))


if __name__ == "__main__":
    main()
