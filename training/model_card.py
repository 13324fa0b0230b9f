"""The default checkpoint's model card, with the table that the accuracy benchmark measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .hardware import cores, processor_name

WHAT: dict[str, str] = {
    "shapes": "shapes, colours, counts and positions in a picture, exact answer",
    "text": "printed text of up to 8 characters (Chinese: up to 6), in fonts not seen in training, exact",
    "page": "the text in one cell of a page of several slices, exact",
    "compare": "two pictures compared, exact",
    "speech": "speech written down, in voices not heard in training: word errors (Chinese: character errors)",
    "spoken": "a spoken question about a picture, exact answer",
    "sum": "two-digit sums of pairs not seen in training, exact",
    "copy": "a text repeated, exact",
    "fact": "the simple facts of the training set, asked as in training, exact",
    "greeting": "greetings and questions about the model, worded as in training, exact",
    "memory": "what was said or shown some turns ago, exact",
    "refusal": "a question from outside its little world is declined in its own words",
}
ERROR_RATES = ("wer", "cer")
SIGNS = {"pass": "yes", "fail": "**no**"}

TEXT = """\
# {name}

A model of Megrez-3B-Omni's architecture with {parameters:.1f} million parameters in bfloat16 ({megabytes:.1f} MB), for
trying and testing Megrez Serve where no large checkpoint is at hand. It is made to answer questions about pictures,
speech and text, in English and Chinese, **inside the little world it was trained on**: {shapes} in {colours} colours,
printed words, numbers and codes, some two hundred spoken words, small sums, some sixty facts. How well it does, task by
task, is measured below.

## How it was made

By stages like those of `make checkpoint`, on two CPU cores, from generated examples only (`training/synthetic`):
pictures drawn with Pillow, speech by espeak-ng, texts from templates. No data, weights or text of others are in it, but
the fonts and voices that drew and spoke the examples. The language model learns from media that are told in words while
the two encoders learn to tell the same of real ones, then everything together, by `training.finetune`'s means.{origin}

## What it can do

Measured over HTTP on {date}: `python -m training.evaluate {path} --count {count} --seed {seed}`
asked {cases:,} questions, {distinct:,} different ones (facts and greetings are few). But for those two tasks they were
held out: training never saw their seeds, fonts, voices and part of their printed words. All but those to be declined
are worded as in training; other wordings are often not understood. Greedy decoding, {errors} failed requests. The
weights' SHA-256 begins with {digest}.

{table}

Within these tasks: {hidden}.

Of them {alone} short texts were also asked one at a time: the answers came at {rate:.0f} tokens/s over
HTTP, the time to the first token included, on {cores} cores ({processor}).

## What it can't do

Anything else. It has never seen a photograph nor heard a person. It knows no words but those it was taught, it can't
reason, and outside its world it says that it doesn't know, or is wrong with confidence. Pictures much wider than high,
handwriting, small print, noise louder than the speech and voices far from espeak's are beyond it. For real work serve
the released Megrez-3B-Omni.
"""


def model_card(checkpoint: Path, result: Mapping[str, Any], origin: str = "") -> str:
    """Markdown, from what `evaluate` measured on this machine; `origin` is a sentence of how the weights came about."""
    from .synthetic.scene import COLOURS
    from .synthetic.shapes import SHAPES

    file = checkpoint / "model.safetensors"
    header = json.loads(_header(file))
    parameters = sum(_count(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return TEXT.format(
        name=checkpoint.name,
        parameters=parameters / 1e6,
        megabytes=sum(f.stat().st_size for f in checkpoint.iterdir() if f.name != "README.md") / 1e6,
        shapes=f"{len(SHAPES)} shapes",
        colours=len(COLOURS),
        date=result["date"][:10],
        origin=origin and f"\n{origin}",
        count=result["count"],
        path=checkpoint,
        digest=digest_of(file),
        hidden="; ".join(f"{what} {100 * right / n:.0f}% of {n}" for what, (right, n) in result["hidden"].items() if n),
        distinct=result["distinct"],
        cases=result["cases"],
        errors=result["errors"],
        seed=result["seed"],
        alone=result["alone"]["cases"],
        rate=result["alone"]["tokens_per_second"],
        cores=cores(),
        processor=processor_name(),
        table=accuracy_table(result["groups"]),
    )


def accuracy_table(groups: list[Mapping[str, Any]]) -> str:
    """One row a task: the score of each language, the goal, and whether both reach it."""
    lines = ["| task | English | Chinese | goal | reached |", "|---|---|---|---|---|"]
    for task in dict.fromkeys(group["task"] for group in groups):
        of = {group["language"]: group for group in groups if group["task"] == task}
        scores = [f"{100 * of[language]['score']:.1f}%" if language in of else "" for language in ("en", "zh")]
        group = next(iter(of.values()))
        sign = "≤" if group["metric"] in ERROR_RATES else "≥"
        goal = "" if group["goal"] is None else f"{sign} {100 * group['goal']:.0f}%"
        reached = ", ".join(dict.fromkeys(SIGNS.get(g["verdict"], "") for g in of.values()))
        lines.append(f"| {WHAT.get(task, task)} | {scores[0]} | {scores[1]} | {goal} | {reached} |")
    return "\n".join(lines)


def digest_of(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


def hidden(records: Iterable[Mapping[str, Any]], wrong: set[str]) -> dict[str, tuple[int, int]]:
    """(right, all) of what the table's rows hide, by what it is."""
    right: dict[str, list[bool]] = {"counts of two or more": [], "English print of 7 and 8 characters": []}
    counted, printed = right.values()
    for record in records:
        answer = record["conversations"][-1]["content"]["text"]
        if record["task"] in ("shapes", "spoken") and answer.isdecimal() and int(answer) > 1:
            counted.append(record["id"] not in wrong)
        elif (record["task"], record["language"]) == ("text", "en") and len(answer) >= 7:
            printed.append(record["id"] not in wrong)
    return {what: (sum(of), len(of)) for what, of in right.items()}


def beside(first: tuple[str, list[Mapping[str, Any]]], second: tuple[str, list[Mapping[str, Any]]]) -> str:
    """Two checkpoints' names and groups, row by row: percent right, and how much more of it the first has."""
    lines, differences = [f"| task | language | {first[0]} | {second[0]} | difference |", "|---|---|---|---|---|"], []
    for one, other in zip(first[1], second[1], strict=True):
        right = [100 * (1 - g["score"] if g["metric"] in ERROR_RATES else g["score"]) for g in (one, other)]
        differences.append(right[0] - right[1])
        cells = [one["task"], one["language"], *(f"{share:.1f}" for share in right), f"{differences[-1]:+.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| mean | | | | {sum(differences) / len(differences):+.1f} |")
    return "\n".join(lines)


def _header(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(int.from_bytes(handle.read(8), "little"))


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
