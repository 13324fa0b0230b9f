"""The default checkpoint answers forty held-out questions over HTTP as it did when their answers were stored."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.client import Answer, ask, chat_body
from benchmarks.datasets import Case, read_cases
from tests.golden import DATA
from training.synthetic.world import TASKS

from .cluster import Cluster

HELD_OUT = DATA / "held_out"
CASES = list(read_cases(HELD_OUT / "cases.jsonl", lambda task, language: "exact"))
STORED: dict[str, str] = json.loads((HELD_OUT / "answers.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def answers(cluster: Cluster) -> dict[str, str]:
    async def all_of_them() -> list[Answer]:
        places = asyncio.Semaphore(8)
        async with cluster.async_client() as client:

            async def one(case: Case) -> Answer:
                async with places:
                    return await ask(client, chat_body(case, cluster.model, max_tokens=64, temperature=0.0))

            return await asyncio.gather(*(one(case) for case in CASES))

    found = asyncio.run(all_of_them())
    assert [answer.error for answer in found] == [None] * len(CASES)
    return {case.id: answer.text for case, answer in zip(CASES, found, strict=True)}


def test_there_are_forty_of_every_task_and_language() -> None:
    assert len(CASES) == len(STORED) == 40
    assert {(case.task, case.language) for case in CASES} == {(task, lang) for task in TASKS for lang in ("en", "zh")}


def test_answers_are_the_stored_ones(answers: dict[str, str]) -> None:
    """But for a few where two tokens are nearly equally likely: other processors round otherwise."""
    differing = {name: (STORED[name], answer) for name, answer in answers.items() if answer != STORED[name]}
    assert len(differing) <= 3, differing


def test_what_was_right_is_right(answers: dict[str, str]) -> None:
    def right(said: dict[str, str]) -> int:
        return sum(said[case.id] in case.references for case in CASES)

    assert right(STORED) >= 36
    assert right(answers) >= right(STORED) - 2
