"""When an engine's replica is to be replaced: its steps fail one after the other, or one hangs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pipeline.errors import MegrezError
from pipeline.generator import Generator

from .test_driver import HELLO, broken, collect, driving, params, play, until


def test_steps_that_keep_failing_are_unhealthy(mini_generator: Generator) -> None:
    mini_generator.step = broken  # type: ignore[method-assign]

    async def scene() -> None:
        async with driving(mini_generator) as driver:
            for _ in range(3):
                assert driver.healthy
                with pytest.raises(MegrezError):
                    await collect(driver, mini_generator.prompt(HELLO, []), params(3))
            assert not driver.healthy

    play(scene())


def test_forwards_that_keep_failing_are_unhealthy(mini_generator: Generator) -> None:
    """As those of a lost GPU do: each ends one sequence, and no step."""
    prompt, run = mini_generator.prompt(HELLO, []), mini_generator.engine.runner.run

    async def scene() -> None:
        async with driving(mini_generator) as driver:
            for failures in (2, 3):
                mini_generator.engine.runner.run = broken  # type: ignore[method-assign]
                for _ in range(failures):
                    assert driver.healthy
                    assert (await collect(driver, prompt, params(3)))[0].finish_reason == "error"
                if failures == 2:  # one that goes well in between, and all is forgotten
                    mini_generator.engine.runner.run = run  # type: ignore[method-assign]
                    assert (await collect(driver, prompt, params(3)))[0].finish_reason == "length"
            assert not driver.healthy

    play(scene())


def test_a_step_that_hangs_is_unhealthy(mini_generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.driver.STEP_LIMIT", 0.05)
    gate, step = threading.Event(), mini_generator.step

    def slow() -> Any:
        gate.wait(10)
        return step()

    mini_generator.step = slow  # type: ignore[method-assign]

    async def scene() -> None:
        async with driving(mini_generator) as driver:
            assert driver.healthy
            answer = asyncio.ensure_future(collect(driver, mini_generator.prompt(HELLO, []), params(1)))
            await until(lambda: not driver.healthy)
            gate.set()
            await answer
            await until(lambda: driver.healthy)

    play(scene())
