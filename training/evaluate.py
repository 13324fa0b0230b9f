"""Serves a checkpoint, asks it the held-out questions over HTTP, and writes its model card.

    python -m training.evaluate CHECKPOINT [--work DIRECTORY] [--count 150] [--seed SEED] [--beside CHECKPOINT]

The held-out records are generated into the work directory, by a seed of their own. With `--beside` another checkpoint
is asked the same, and the two are compared.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .model_card import beside, hidden, model_card
from .synthetic.export import export

ROOT = Path(__file__).parents[1]
HELD_OUT_SEED = 2032
"""Of the next card's questions: a seed by which something was decided is none to measure by any more. By 2026 and 2028
rounds of the repository's checkpoint were judged, after its mistakes on 2027 came drills, and 2029 to 2031 were those
of cards."""
START_SECONDS = 300
SHORT = ["copy", "fact", "greeting"]
TEXTS = 20  # of a short task and language, for the rate of answers to one request at a time


def questions(work: Path, count: int, seed: int) -> tuple[Path, Path]:
    """Files of `count` held-out examples of each task and language, and of texts to be asked one at a time."""
    data = export(work / f"held-out-{seed}-{count}", split="test", count=count, seed=seed)
    texts = export(work / f"texts-{seed}", split="test", count=min(TEXTS, count), seed=seed, tasks=SHORT)
    return data, texts


def evaluate(checkpoint: Path, work: Path, data: Path, texts: Path) -> dict[str, Any]:
    """The accuracy benchmark's result on `data`, with more entries: `alone`, its result on `texts`, which are asked one
    at a time, and those of `read_result`."""
    work.mkdir(parents=True, exist_ok=True)
    result, alone = work / "accuracy.json", work / "alone.json"
    all_wrong = ["--show-wrong", str(sys.maxsize)]
    with served(checkpoint, work) as url:
        ask(url, texts, alone, "--concurrency", "1")
        ask(url, data, result, "--goals", "benchmarks/goals.json", "--concurrency", "8", *all_wrong)
    return read_result(data, result) | {"alone": json.loads(alone.read_text("utf-8"))}


def read_result(data: Path, result: Path) -> dict[str, Any]:
    """What the benchmark wrote, with `distinct`, how many of its questions differ, and `hidden`."""
    found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    records = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    distinct = len({json.dumps(record["conversations"]) for record in records})
    wrong = {case["id"] for case in (*found["wrong"], *found["failures"])}
    return found | {"distinct": distinct, "hidden": hidden(records, wrong)}


def ask(url: str, data: Path, result: Path, *options: str) -> None:
    """The accuracy benchmark on a server; its JSON goes to `result`, the answers beside it."""
    command = [sys.executable, "-m", "benchmarks.accuracy", str(data), "--base-url", f"{url}/v1"]
    code = subprocess.run([*command, "--output", str(result), *options], cwd=ROOT, check=False).returncode
    if code not in (0, 1):  # 1: asked, but a goal was missed or a request failed, which the result tells
        raise SystemExit(f"the accuracy benchmark ended with {code}")


@contextmanager
def served(checkpoint: Path, work: Path) -> Iterator[str]:
    """Runs serve_config.yaml with this checkpoint on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["checkpoint"] = str(checkpoint.resolve())
    file = work / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("serve")), "run", str(file)]
    with (work / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(url, server, work / "serve.log")
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise SystemExit(f"the server did not become healthy; see {log}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/checkpoint"))
    parser.add_argument("--count", type=int, default=150, help="examples of a task in a language")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--origin", default="", help="a sentence of the card: how these weights came about")
    parser.add_argument("--beside", type=Path, metavar="CHECKPOINT", help="another one, to compare with")
    args = parser.parse_args()
    asked = questions(args.work, args.count, args.seed)
    result = evaluate(args.checkpoint, args.work, *asked) | {"count": args.count, "seed": args.seed}
    (args.checkpoint / "README.md").write_text(model_card(args.checkpoint, result, args.origin), encoding="utf-8")
    print(f"wrote {args.checkpoint / 'README.md'}")
    if args.beside:
        other = evaluate(args.beside, args.work / "beside", *asked)
        print(beside((args.checkpoint.name, result["groups"]), (args.beside.name, other["groups"])))


if __name__ == "__main__":
    main()
