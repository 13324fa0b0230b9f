"""The accuracy of a running server on questions with known answers; benchmarks/README.md says how.

Exit status: 0; 1 where requests failed or a goal was missed; 2 where nothing could be asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAIError
from tqdm import tqdm

from .answers import AnswerFile, answers_beside, read_answers, utf8
from .client import Answer, ask, chat_body, digest, served_model
from .datasets import Case, DataError, read_cases
from .goals import Goal, GoalsError, read_goals
from .metrics import METRICS
from .report import failures, outcome, summarize, table, wrong_cases

PACKAGES = ("megrez-serve", "openai", "jiwer", "transformers", "whisper-normalizer")


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def fields(text: str) -> dict[str, Any]:
    """Of a request; what it is about and how it is answered is ours."""
    value = json.loads(text)
    if not isinstance(value, dict) or value.keys() & {"model", "messages", "stream", "n"}:
        raise ValueError(text)
    return value


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    add = parser.add_argument
    add("data", nargs="+", type=Path, metavar="DATA", help="JSONL: conversations, or questions with answers")
    add("--base-url", default="http://127.0.0.1:8000/v1")
    add("--model", default="auto", help="auto: the first that the server lists")
    add("--api-key", default=os.environ.get("OPENAI_API_KEY", "none"), help="default: $OPENAI_API_KEY")
    add("--concurrency", type=positive, default=8, help="requests at once")
    add("--max-tokens", type=positive, default=64)
    add("--temperature", type=float, default=0.0)
    add("--fields", type=fields, default={}, metavar="JSON", help="of each request besides; null leaves one out")
    add("--metric", choices=METRICS, help="of records that name none; default: the goals', or exact")
    add("--media-root", type=Path, help="what the records' paths are relative to; default: the file's folder")
    add("--limit", type=positive, help="the first so many records of each file")
    add("--output", type=Path, default=Path("result.json"), help="answers go beside it, to NAME.answers.jsonl")
    add("--resume", action="store_true", help="keep the answers of the last run and send only what has none")
    add("--goals", type=Path, help="what each task should reach, as benchmarks/goals.json")
    add("--show-wrong", type=int, default=20, help="wrong answers to list for each row of the table")
    add("--retries", type=int, default=10, help="of a request that got 429, 5xx or no connection; Retry-After counts")
    add("--timeout", type=float, default=300.0, help="seconds a request")
    return parser.parse_args(argv)


def read_all(args: argparse.Namespace, goals: dict[str, Goal]) -> list[Case]:
    """The cases of all files. Raises DataError."""

    def default_metric(task: str, language: str) -> str:
        goal = goals.get(task)
        return args.metric or (goal and goal.metric(language)) or "exact"

    files = [read_cases(file, default_metric, args.media_root) for file in args.data]
    cases = [case for file in files for case in islice(file, args.limit)]
    if not cases:
        raise DataError("there are no records")
    return cases


async def answers_to(cases: Sequence[Case], args: argparse.Namespace) -> tuple[str, list[Answer], list[Answer]]:
    """The model's name, an answer to each case in order, and those that were asked now."""
    path = answers_beside(args.output)
    known = read_answers(path) if args.resume else {}
    key = {"base_url": args.base_url, "api_key": args.api_key}
    async with AsyncOpenAI(**key, max_retries=args.retries, timeout=args.timeout) as client:
        model = await served_model(client) if args.model == "auto" else args.model
        places = asyncio.Semaphore(args.concurrency)
        asked: list[Answer] = []
        with AnswerFile(path, args.resume) as file, tqdm(total=len(cases), unit="request", disable=None) as bar:

            async def answer_to(case: Case) -> Answer:
                async with places:
                    body = chat_body(case, model, args.max_tokens, args.temperature, args.fields)
                    answer = known.get(digest(body))
                    if answer is None:
                        answer = await ask(client, body)
                        file.add(answer)
                        asked.append(answer)
                bar.update()
                return answer

            answers = await asyncio.gather(*(answer_to(case) for case in cases))
    return model, answers, asked


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            continue
    return found


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The result as it is written, and as it is printed."""
    if args.output.is_dir():
        raise DataError(f"--output {args.output} is a directory, not a file to write")
    goals = read_goals(args.goals) if args.goals else {}
    cases = read_all(args, goals)
    date, begin = datetime.now(UTC), time.perf_counter()
    model, answers, asked = asyncio.run(answers_to(cases, args))
    seconds = time.perf_counter() - begin
    tokens = sum(answer.tokens for answer in asked)
    outcomes = [outcome(case, answer) for case, answer in zip(cases, answers, strict=True)]
    groups = summarize(outcomes, goals)
    failed = failures(outcomes)
    missing = sorted(goals.keys() - {case.task for case in cases})
    shown = ("concurrency", "max_tokens", "temperature", "fields", "metric", "limit", "resume", "retries", "timeout")
    result = {
        "date": date.isoformat(timespec="seconds"),
        "base_url": args.base_url,
        "model": model,
        "data": [str(file) for file in args.data],
        "settings": {name: getattr(args, name) for name in shown},
        "versions": versions(),
        "cases": len(cases),
        "asked": len(asked),
        "seconds": round(seconds, 3),
        "requests_per_second": round(len(asked) / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "errors": len(failed),
        "groups": [asdict(group) for group in groups],
        "goals_without_data": missing,
        "failures": failed,
        "wrong": wrong_cases(outcomes, args.show_wrong),
    }
    rates = f"{len(asked) / seconds:.2f} requests/s, {tokens / seconds:.1f} tokens of answers/s"
    speed = f"{len(asked)} asked now in {seconds:.1f} s ({rates})"
    lines = [table(groups), "", f"{model}: {len(cases)} cases, {speed}, {len(failed)} errors"]
    lines += [f"error: {failure['id']}: {failure['error']}" for failure in failed[: args.show_wrong]]
    lines += [f"goals without data: {', '.join(missing)}"] if missing else []
    return result, "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        result, text = evaluate(args)
    except OpenAIError as error:  # the list of models; what requests raise is counted
        print(f"error: {args.base_url}: {error}", file=sys.stderr)
        return 2
    except (DataError, GoalsError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    args.output.write_bytes(utf8(json.dumps(result, ensure_ascii=False, indent=2) + "\n"))
    print(utf8(text).decode())
    print(f"written to {args.output}")
    missed = any(group["verdict"] not in (None, "pass") for group in result["groups"])
    return 1 if result["errors"] or missed else 0


if __name__ == "__main__":
    sys.exit(main())
