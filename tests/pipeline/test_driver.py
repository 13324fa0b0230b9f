from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from pipeline.driver import Driver, merge
from pipeline.engine.engine import EngineStats
from pipeline.errors import ContextOverflow, MegrezError, Overloaded
from pipeline.generator import Generator
from pipeline.types import Delta, Message, Prompt, SamplingParams
from tests.pipeline.helpers import finish

HELLO = [Message("user", "Hello")]


def params(max_tokens: int, **changes: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, ignore_eos=True, **{"temperature": 0, **changes})


@asynccontextmanager
async def driving(generator: Generator, **options: Any) -> AsyncIterator[Driver]:
    driver = Driver(generator, **options)
    try:
        yield driver
    finally:
        driver.close()
        assert not driver._thread.is_alive()


def play(scene: Any) -> Any:
    return asyncio.run(asyncio.wait_for(scene, 30))


async def until(condition: Callable[[], Any], seconds: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.005)


async def collect(driver: Driver, prompt: Prompt, wanted: SamplingParams, n: int = 1) -> list[Delta]:
    pieces = [delta async for deltas in driver.generate(prompt, [], wanted, n) for delta in deltas]
    return merge(pieces)


class TestStreaming:
    def test_equals_the_generator(self, mini_generator: Generator) -> None:
        prompt = mini_generator.prompt(HELLO, [])
        wanted = finish(mini_generator, mini_generator.add(prompt, [], params(30, logprobs=1)))

        async def scene() -> None:
            async with driving(mini_generator) as driver:
                assert await collect(driver, prompt, params(30, logprobs=1)) == wanted

        play(scene())

    def test_pieces_come_as_they_are_made(self, mini_generator: Generator) -> None:
        async def scene() -> None:
            async with driving(mini_generator) as driver:
                stream = driver.generate(mini_generator.prompt(HELLO, []), [], params(400))
                first = await anext(stream)
                assert first[0].finish_reason is None
                assert not mini_generator.idle, "the first piece must not wait for the last"
                rest = [delta async for deltas in stream for delta in deltas]
                assert len(rest) > 5
                assert rest[-1].finish_reason == "length"

        play(scene())

    def test_several_callers_and_answers(self, mini_generator: Generator) -> None:
        prompts = [mini_generator.prompt([Message("user", f"Question {i}")], []) for i in range(6)]
        wanted = [
            finish(mini_generator, mini_generator.add(p, [], params(15, temperature=1.0, seed=i), n=2))
            for i, p in enumerate(prompts)
        ]

        async def scene() -> None:
            async with driving(mini_generator) as driver:
                got = await asyncio.gather(
                    *(collect(driver, p, params(15, temperature=1.0, seed=i), 2) for i, p in enumerate(prompts))
                )
                assert [sorted(deltas, key=lambda d: d.index) for deltas in got] == wanted
                assert driver.healthy

        play(scene())

    def test_every_step_is_reported(self, mini_generator: Generator) -> None:
        seen: list[EngineStats] = []

        async def scene() -> None:
            async with driving(mini_generator, on_change=seen.append) as driver:
                await collect(driver, mini_generator.prompt(HELLO, []), params(5))
                await until(lambda: seen[-1].running == 0)

        play(scene())
        assert max(stats.running for stats in seen) == 1
        assert max(stats.blocks_used for stats in seen) > 0
        assert seen[-1].blocks_used == 0


class TestLeaving:
    @pytest.mark.parametrize("how", ["cancel", "close"])
    def test_a_caller_who_leaves_frees_its_blocks(self, mini_generator: Generator, how: str) -> None:
        async def scene() -> None:
            async with driving(mini_generator) as driver:
                started = asyncio.Event()
                stream = driver.generate(mini_generator.prompt(HELLO, []), [], params(900), 2)

                async def read() -> None:
                    async for _ in stream:
                        started.set()
                        if how == "close":
                            break
                    await stream.aclose()

                task = asyncio.create_task(read())
                await started.wait()
                if how == "cancel":
                    assert driver.stats.blocks_used > 0
                    task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await until(lambda: driver.stats.blocks_used == driver.stats.running == driver.stats.waiting == 0)
                assert not driver._calls
                assert not mini_generator._answers

        play(scene())

    def test_leaving_before_the_first_piece(self, mini_generator: Generator) -> None:
        async def scene() -> None:
            async with driving(mini_generator) as driver:
                prompt = mini_generator.prompt([Message("user", "word " * 300)], [])
                tasks = [asyncio.create_task(collect(driver, prompt, params(300))) for _ in range(5)]
                await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await until(lambda: mini_generator.idle and driver.stats.blocks_used == 0)
                assert len((await collect(driver, mini_generator.prompt(HELLO, []), params(5)))[0].token_ids) == 5

        play(scene())

    def test_others_go_on(self, mini_generator: Generator) -> None:
        prompt = mini_generator.prompt(HELLO, [])
        wanted = finish(mini_generator, mini_generator.add(prompt, [], params(60)))

        async def scene() -> None:
            async with driving(mini_generator) as driver:
                stays = asyncio.create_task(collect(driver, prompt, params(60)))
                goes = asyncio.create_task(collect(driver, prompt, params(800)))
                await until(lambda: driver.stats.running == 2)
                goes.cancel()
                assert await stays == wanted

        play(scene())


class TestErrors:
    def test_an_error_at_the_door_is_the_callers(self, mini_generator: Generator) -> None:
        async def scene() -> None:
            async with driving(mini_generator) as driver:
                with pytest.raises(ContextOverflow):
                    await collect(driver, mini_generator.prompt(HELLO, []), params(10**6))
                assert driver.healthy
                assert len((await collect(driver, mini_generator.prompt(HELLO, []), params(3)))[0].token_ids) == 3

        play(scene())

    def test_a_step_that_fails_ends_everyone(self, mini_generator: Generator) -> None:
        prompt = mini_generator.prompt(HELLO, [])

        async def scene() -> None:
            async with driving(mini_generator) as driver:
                tasks = [asyncio.create_task(collect(driver, prompt, params(800))) for _ in range(3)]
                await until(lambda: driver.stats.running == 3)
                original, mini_generator.step = mini_generator.step, broken  # type: ignore[method-assign]
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(r, MegrezError) for r in results)
                assert not any("secret" in str(r) for r in results)
                mini_generator.step = original  # type: ignore[method-assign]
                assert driver.stats.blocks_used == 0
                assert len((await collect(driver, prompt, params(3)))[0].token_ids) == 3
                assert driver.healthy

        play(scene())

    def test_a_failed_sequence_is_a_delta(self, mini_generator: Generator) -> None:
        def fail(*_: Any) -> Any:
            raise RuntimeError("secret")

        mini_generator.engine.runner.run = fail  # type: ignore[method-assign]

        async def scene() -> None:
            async with driving(mini_generator) as driver:
                delta = (await collect(driver, mini_generator.prompt(HELLO, []), params(3)))[0]
                assert delta.finish_reason == "error"
                assert delta.error
                assert "secret" not in delta.error

        play(scene())

    def test_closing_ends_those_who_wait(self, mini_generator: Generator) -> None:
        async def scene() -> None:
            driver = Driver(mini_generator)
            task = asyncio.create_task(collect(driver, mini_generator.prompt(HELLO, []), params(900)))
            await until(lambda: driver.stats.running == 1)
            driver.close()
            assert not driver.healthy
            with pytest.raises(MegrezError):
                await asyncio.wait_for(task, 2)

        play(scene())

    def test_nobody_waits_for_a_closed_driver(self, mini_generator: Generator) -> None:
        async def scene() -> None:
            driver = Driver(mini_generator)
            driver.close()
            with pytest.raises(MegrezError):
                await asyncio.wait_for(collect(driver, mini_generator.prompt(HELLO, []), params(3)), 2)

        play(scene())

    def test_a_broken_observer_stops_nobody(self, mini_generator: Generator) -> None:
        def observe(_: EngineStats) -> None:
            raise RuntimeError("metrics are down")

        async def scene() -> None:
            async with driving(mini_generator, on_change=observe) as driver:
                task = collect(driver, mini_generator.prompt(HELLO, []), params(3))
                assert len((await asyncio.wait_for(task, 2))[0].token_ids) == 3

        play(scene())


class TestResizing:
    LIMITS: dict[str, int] = {"max_batch_tokens": 32, "max_running": 2, "max_waiting": 1, "threads": 1}  # noqa: RUF012

    def test_new_limits_hold_for_what_comes(self, mini_generator: Generator) -> None:
        prompt = mini_generator.prompt(HELLO, [])

        async def scene() -> None:
            async with driving(mini_generator) as driver:
                before = asyncio.create_task(collect(driver, prompt, params(60)))
                await until(lambda: driver.stats.running == 1)
                driver.resize(**self.LIMITS, default_max_tokens=7)
                with pytest.raises(Overloaded):
                    await asyncio.gather(*(collect(driver, prompt, params(200), 2) for _ in range(3)))
                assert len((await before)[0].token_ids) == 60
                open_ended = replace(params(1), max_tokens=None)
                assert len((await collect(driver, prompt, open_ended))[0].token_ids) == 7

        play(scene())

    def test_limits_that_do_not_fit_together(self, mini_generator: Generator) -> None:
        async def scene() -> None:
            async with driving(mini_generator) as driver:
                with pytest.raises(MegrezError, match="max_batch_tokens"):
                    driver.resize(**{**self.LIMITS, "max_running": 33}, default_max_tokens=None)
                assert len((await collect(driver, mini_generator.prompt(HELLO, []), params(3)))[0].token_ids) == 3

        play(scene())


def broken() -> Any:
    raise RuntimeError("secret inner words")


def test_merging() -> None:
    pieces = [Delta(1, "a", (1,)), Delta(0, "x", (9,)), Delta(1, "b", (2,), finish_reason="stop")]
    assert merge(pieces) == [Delta(1, "ab", (1, 2), finish_reason="stop"), Delta(0, "x", (9,))]
    assert merge([]) == []
