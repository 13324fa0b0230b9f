"""What is trained on: records as features, several files weighted, and what was left out."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from pipeline.errors import MegrezError

from .features import Features, Featuriser
from .hardware import cores
from .records import SHOWN, DataError, Record, has_text_beside_speech, speech_alone

log = logging.getLogger(__name__)

SPEECH_TEXT = ("keep", "drop", "both")
MOST_CHECKERS = 8
MANY = 100
"""Records that take long to check: by several processes, with a bar."""


def check_weights(files: int, weights: Sequence[float]) -> None:
    """Raises MegrezError unless each file has a weight over 0."""
    if len(weights) != files or min(weights) <= 0:
        raise MegrezError(f"{files} data files need as many weights over 0, not {list(weights)}")


@dataclass
class RecordDataset(Dataset[Features]):
    """Records that have been checked. Media are decoded when an item is asked for; `lengths` are tokens.
    `left_out` says which were too long."""

    records: list[Record]
    lengths: list[int]
    featurise: Featuriser
    left_out: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Features:
        return self.featurise(self.records[index].conversations)


def prepare(
    records: Sequence[Record], featurise: Featuriser, *, model_max_length: int, speech_text: str = "keep"
) -> RecordDataset:
    """Lays every record out once, before training: its media must decode and its tokens must fit.

    `speech_text` says what becomes of a text beside a recording: 'keep', 'drop', or 'both' (the record
    counts twice, once each way). Records over `model_max_length` tokens are left out and named in a
    warning. Raises DataError with every medium that can't be decoded.
    """
    chosen: list[Record] = []
    alone: list[Record] = []
    for record in records:
        spoken = speech_text != "keep" and has_text_beside_speech(record)
        if speech_text != "drop" or not spoken:
            chosen.append(record)
        if spoken:
            alone.append(speech_alone(record))
            chosen.append(alone[-1])
    if alone:
        _tell_of_speech(alone, speech_text)
    kept, lengths, problems, long = [], [], [], []
    few = len(chosen) < MANY
    found = DataLoader(_Checked(chosen, featurise), batch_size=None, num_workers=0 if few else _free_cores())
    bar = tqdm(found, desc="checking records", unit="record", total=len(chosen), disable=few)
    for record, length in zip(chosen, bar, strict=True):
        if isinstance(length, str):
            problems.append(f"{record.where}: {length}")
        elif length > model_max_length:
            long.append(f"{record.where} ({length} tokens)")
        else:
            kept.append(record)
            lengths.append(length)
    if problems:
        raise DataError(list(dict.fromkeys(problems)))  # a record that counts twice is named once
    if long:
        more = f" and {len(long) - SHOWN} more" if len(long) > SHOWN else ""
        log.warning(
            "%d of %d records are longer than model_max_length %d and are left out: %s%s",
            len(long), len(chosen), model_max_length, ", ".join(long[:SHOWN]), more,
        )  # fmt: skip
    if not kept:
        raise DataError([f"{records[0].where.rpartition(':')[0]}: no record fits model_max_length {model_max_length}"])
    return RecordDataset(kept, lengths, featurise, long)


@dataclass
class _Checked(Dataset[int | str]):
    """Of each record its tokens, or what is wrong with it."""

    records: Sequence[Record]
    featurise: Featuriser

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> int | str:
        try:
            return len(self.featurise(self.records[index].conversations).input_ids)
        except MegrezError as error:
            return str(error)


def _free_cores() -> int:
    """Those of this process, where torchrun has started several on a machine; no more than memory may have room for
    large pictures."""
    return min(max(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1), MOST_CHECKERS)


def _tell_of_speech(records: Sequence[Record], speech_text: str) -> None:
    """That texts are left out of these, and where that leaves equal questions with different answers."""
    what = "count twice, the second time without" if speech_text == "both" else "are used without"
    log.info(
        "speech_text %s: %d records %s the text beside their recording, as if it repeated what is spoken. "
        "Where it is an instruction, use speech_text keep", speech_text, len(records), what,
    )  # fmt: skip
    answers: dict[str, set[str]] = {}
    for record in records:
        turns = record.conversations  # the last is the assistant's
        first = next(i for i, turn in enumerate(turns) if turn["content"].get("audio"))
        reply = next(turn["content"]["text"] for turn in turns[first + 1 :] if turn["role"] == "assistant")
        answers.setdefault(json.dumps(turns[: first + 1]), set()).add(reply)
    ambiguous = sum(len(found) > 1 for found in answers.values())
    if ambiguous:
        log.warning("without those texts, %d recordings have several answers: the texts are instructions", ambiguous)


class Mixture(Dataset[Features]):
    """Several datasets in one. With weight 2 a dataset's items come twice an epoch, with 0.5 half of them,
    drawn by the seed: the same in every epoch. A warning says how many are never used."""

    def __init__(self, parts: Sequence[RecordDataset], weights: Sequence[float], seed: int) -> None:
        check_weights(len(parts), weights)
        self.places: list[tuple[RecordDataset, int]] = []
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            rng = random.Random(f"{seed} {number}")
            whole, rest = divmod(max(round(weight * len(part)), 1), len(part))
            items = [*range(len(part))] * whole + rng.sample(range(len(part)), rest)
            if not whole:
                unused = len(part) - rest
                log.warning(
                    "by weight %g, %d of %d records of data file %d are not used", weight, unused, len(part), number + 1
                )
            self.places += [(part, item) for item in items]
        self.lengths = [part.lengths[item] for part, item in self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Features:
        part, item = self.places[index]
        return part[item]

    def split(self, share: float, seed: int) -> tuple[Mixture, Mixture]:
        """(for training, held out): `share` of the lines is held out, at least one; all forms of a line together."""
        distinct = list(dict.fromkeys(part.records[item].where for part, item in self.places))
        held = set(random.Random(seed).sample(distinct, max(round(share * len(distinct)), 1)))
        if len(held) == len(distinct):
            raise MegrezError(f"eval_share {share} leaves nothing to train on: there are {len(distinct)} records")
        return self._where(lambda record: record.where not in held), self._where(lambda record: record.where in held)

    def _where(self, wanted: Callable[[Record], bool]) -> Mixture:
        chosen = object.__new__(Mixture)
        chosen.places = [(part, item) for part, item in self.places if wanted(part.records[item])]
        chosen.lengths = [part.lengths[item] for part, item in chosen.places]
        return chosen
