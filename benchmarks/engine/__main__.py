"""The decoder's engine beside its peers, on the same weights and in the same minutes; README.md here says how.

Exit status: 0; 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import DecoderConfig, ModelConfig

from . import properties, rounding, workloads
from .goals import judged
from .process import PROJECT, Absent, Setup, Worker
from .roofline import CpuProbe, CudaProbe, Probe, decode, prefill
from .tables import OURS, Row, as_json, rows_of, text
from .weights import Layouts, megrez_3b, smollm2

PREFILLS, BATCHES = (128, 512, 2048), {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 64)}
CONTEXT, ANSWER = 512, 128
SCENARIO = properties.IMAGE_TOKENS + properties.TEXT_TOKENS
DTYPES, BYTES = {"cpu": "float32", "cuda": "bfloat16"}, {"cpu": 4.0, "cuda": 2.0}
MODELS = {"SmolLM2-135M": smollm2, "Megrez-3B-Omni": megrez_3b}
PARTS = ("prefill", "decode", "int8", "scenario", "properties", "default")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=PROJECT / "build" / "benchmarks", help="weights and logs")
    add("--output", type=Path, default=PROJECT / "build" / "benchmarks" / "engine.json")
    add(
        "--model",
        choices=MODELS,
        default="SmolLM2-135M",
        help="Megrez-3B-Omni: its size, random weights; without int8 and default",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: in bfloat16, without int8 and default")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=5)
    add("--vllm", type=Path, metavar="PYTHON", help="of an environment that has vllm")
    add("--llama", type=Path, metavar="PYTHON", help="of an environment that has llama-cpp-python")
    add("--parts", nargs="+", choices=PARTS, default=PARTS)
    return parser.parse_args(argv)


def setups_of(args: argparse.Namespace, layouts: Layouts) -> list[Setup]:
    """All engines, in one type of numbers."""
    here, kind = Path(sys.executable), {"device": args.device, "dtype": DTYPES[args.device]}
    setups = [
        Setup(OURS, "megrez", here, layouts.released, kind | ({"weights": "float32"} if args.device == "cpu" else {})),
        Setup("transformers", "transformers_generate", here, layouts.huggingface, kind),
        Setup("transformers batching", "transformers_batching", here, layouts.huggingface, kind),
    ]
    if args.vllm:
        setups.append(Setup("vllm", "vllm_engine", args.vllm, layouts.huggingface, kind))
    if args.llama and args.device == "cpu":
        setups.append(Setup("llama.cpp F32", "llama", args.llama, layouts.f32))
    return setups


@contextlib.contextmanager
def started(setups: Sequence[Setup], args: argparse.Namespace, facts: dict[str, Any]) -> Iterator[dict[str, Worker]]:
    """Workers that could be started; the others are told, and stand in `facts`."""
    workers: dict[str, Worker] = {}
    try:
        for setup in setups:
            say(f"starting {setup.name}")
            log = args.work / f"{setup.name.replace(' ', '-')}.log"
            try:
                workers[setup.name] = Worker(setup, args.threads, log)
                facts[setup.name] = dict(workers[setup.name].facts)
            except Absent as error:
                say(f"{setup.name} is left out: {error}; see {log}")
                facts[setup.name] = f"absent: {error}"
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def compare(args: argparse.Namespace, layouts: Layouts, config: DecoderConfig, probe: Probe, facts: Any) -> list[Row]:
    """Every engine, on a CPU in float32."""
    rows: list[Row] = []
    dtype, size = DTYPES[args.device], BYTES[args.device]
    vocab, wanted = config.vocab_size, {"prefill", "decode", "scenario", "properties"} & set(args.parts)
    if not wanted:
        return rows
    with started(setups_of(args, layouts), args, facts) as workers:
        for tokens in PREFILLS if "prefill" in wanted else ():
            say(f"prefill of {tokens}")
            found = workloads.prefill(workers, tokens, vocab, args.rounds, probe)
            best = prefill(config, tokens, size).seconds(probe.machine)
            rows += rows_of(f"Prefill, {dtype}", f"prefill {tokens}", found, best, reference="transformers")
        if "decode" in wanted:
            table = f"A decode step, {dtype}"
            rows += decode_rows(
                table,
                workers,
                BATCHES[args.device],
                config,
                args,
                probe,
                weight_bytes=size,
                cache_bytes=size,
                reference="transformers",
            )
        if "scenario" in wanted:
            rows += scenario(workers, vocab)
        if "properties" in wanted and OURS in workers:
            say("the engine beside itself")
            ours = workers[OURS]
            rows += properties.bookkeeping(ours, vocab)
            rows += properties.growth(ours, config, probe.machine, size)
            rows += properties.disturbance(ours, vocab)
            rows += properties.repetition(ours, vocab, args.rounds)
    return rows


def decode_rows(
    table: str,
    workers: dict[str, Worker],
    batches: Sequence[int],
    config: DecoderConfig,
    args: argparse.Namespace,
    probe: Probe,
    workload: str = "decode {}",
    weight_bytes: float = 4.0,
    cache_bytes: float = 4.0,
    ours: str = OURS,
    reference: str | None = None,
) -> list[Row]:
    rows = []
    for batch in batches:
        say(f"{table}, {batch} at a time")
        found = workloads.decode(workers, batch, CONTEXT, ANSWER, config.vocab_size, args.rounds, probe)
        best = decode(config, batch, CONTEXT + ANSWER // 2, weight_bytes, cache_bytes).seconds(probe.machine)
        rows += rows_of(table, workload.format(batch), found, best, ours, reference)
    return rows


def scenario(workers: dict[str, Worker], vocab: int) -> list[Row]:
    """That of the model's authors: a picture and 128 tokens in, 128 out, 8 at a time. Peers get as many text tokens."""
    table, rows = "8 requests with a picture's 448 embeds (not encoded here) and 128 tokens in, 128 out", []
    prompts = workloads.random_prompts(8, SCENARIO, vocab, seed=5)
    for kind, asked in (("distinct", prompts), ("identical", prompts[:1] * 8)):
        say(f"8 {kind} requests with a picture")
        for name, worker in workers.items():
            options: dict[str, Any] = {}
            try:
                if name == OURS:  # peers have their cache's memory before they begin, too
                    worker.call("renew")
                    options = {"media_tokens": properties.IMAGE_TOKENS, "renew": False}
                first = worker.call("start", prompts=asked, **options).seconds
                steps = worker.call("steps", count=ANSWER - 1).result
                worker.call("finish")
            except RuntimeError as error:
                rows.append(Row(table, kind, name, None, "", note=str(error)))
                continue
            rows.append(Row(table, f"{kind}, in", name, 8 * SCENARIO / first, "tokens/s"))
            rows.append(Row(table, f"{kind}, out", name, 8 * len(steps) / sum(steps), "tokens/s"))
    return rows


def small_weights(
    args: argparse.Namespace, layouts: Layouts, config: DecoderConfig, probe: Probe, facts: Any
) -> list[Row]:
    """Weights in fewer bits."""
    here = Path(sys.executable)
    setups = [
        Setup("megrez int8", "megrez", here, layouts.released, {"weights": "int8"}),
        Setup("megrez bfloat16", "megrez", here, layouts.released, {"weights": "bfloat16"}),
    ]
    if args.llama:
        setups.append(Setup("llama.cpp Q8_0", "llama", args.llama, layouts.q8))
    with started(setups, args, facts) as workers:
        table = "A decode step, smaller weights (the roofline is that of a byte a weight)"
        rows = decode_rows(table, workers, (1, 8), config, args, probe, weight_bytes=1.0, ours="megrez int8")
    say("what smaller weights change")
    return rows + rounding.compare(layouts.released, layouts.huggingface, ("int8", "bfloat16"), args.threads)


def default_checkpoint(args: argparse.Namespace, probe: Probe, facts: Any) -> list[Row]:
    path = PROJECT / "checkpoints" / "megrez-omni-mini"
    config = ModelConfig.from_pretrained(path).decoder
    setup = Setup(OURS, "megrez", Path(sys.executable), path)
    with started([setup], args, facts) as workers:
        table = "The default checkpoint, a decode step"
        return decode_rows(table, workers, (1, 8), config, args, probe, "{} at a time", weight_bytes=2.0)


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    args.work = args.work.absolute()
    layouts = MODELS[args.model](args.work)
    config = ModelConfig.from_pretrained(layouts.released).decoder
    facts: dict[str, Any] = {}
    probe: Probe = CpuProbe(args.threads) if args.device == "cpu" else CudaProbe()
    probe.measure()
    rows = compare(args, layouts, config, probe, facts)
    smaller = args.device == "cpu" and args.model == "SmolLM2-135M"
    if "int8" in args.parts and smaller:
        rows += small_weights(args, layouts, config, probe, facts)
    if "default" in args.parts and smaller:
        rows += default_checkpoint(args, probe, facts)
    rows = judged(rows)
    machine = {
        "processor": probe.name,
        "cores": os.cpu_count(),
        "threads": args.threads,
        "read_gb_s": round(probe.machine.bandwidth / 1e9, 1),
        "dtype": DTYPES[args.device],
        "gflop_s": round(probe.machine.flops / 1e9, 1),
        "load": statistics.fmean(os.getloadavg()),
    }
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "model": args.model,
        "rounds": args.rounds,
        "machine": machine,
        "engines": facts,
        "rows": as_json(rows),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    print(
        f"{result['date']}, {machine['processor']}, {args.threads} threads: reads {machine['read_gb_s']} GB/s, ", end=""
    )
    print(f"multiplies {machine['gflop_s']} GFLOP/s in {machine['dtype']}\n")
    print(text(rows))
    return int(any(row.reached is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
