from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from deployments.codec import Piece
from deployments.media_cache import EncodedMedia
from deployments.stages import Stages
from pipeline.errors import InvalidMedia
from pipeline.types import ChatRequest, EncodeStats, SamplingParams

from .fakes import encoded, run, task_error, until

STATS = EncodeStats(1.0, 0.0, 1.0, 4, 100)


class FakeRef:
    """A reference: awaiting it fetches the object."""

    def __init__(self, value: Any) -> None:
        self.value, self.fetched = value, False

    def __await__(self) -> Any:
        self.fetched = True
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class FakeResponse:
    """What a streaming call returns: items to iterate over, or references to them."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.cancelled = list(items), 0
        self.end = FakeRef(None)

    async def _to_object_ref_gen(self) -> FakeResponse:
        return self

    def completed(self) -> FakeRef:
        return self.end

    def cancel(self) -> None:
        self.cancelled += 1

    def __aiter__(self) -> FakeResponse:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        if not self.items:
            raise StopAsyncIteration
        item = self.items.pop(0)
        if isinstance(item, float):
            await asyncio.sleep(item)
            return await self.__anext__()
        if isinstance(item, BaseException):
            raise item
        return item

    def __next__(self) -> Any:
        return self.items.pop(0)


class FakeHandle:
    def __init__(self, *items: Any) -> None:
        self.response, self.calls = FakeResponse(list(items)), []
        self.encode = self.generate = self

    def options(self, *, stream: bool) -> FakeHandle:
        assert stream
        return self

    def remote(self, *args: Any, **named: Any) -> FakeResponse:
        self.calls.append((args, named))
        return self.response


def stages(handle: FakeHandle) -> Stages:
    return Stages(vision=handle, audio=handle, decoder=handle)  # type: ignore[arg-type]


class TestEncode:
    def test_the_report_is_fetched_the_embeds_are_not(self) -> None:
        report, embeds = FakeRef(STATS), FakeRef("embeds")
        handle = FakeHandle(report, embeds)
        media = run(stages(handle).encode("image", b"x", "id"))
        assert media.ref is embeds
        assert media.stats is STATS
        assert (report.fetched, embeds.fetched) == (True, False)
        assert handle.calls == [((b"x", "id"), {})]
        assert handle.response.cancelled == 0

    def test_each_modality_has_its_encoder(self) -> None:
        vision, audio = (FakeHandle(FakeRef(STATS), FakeRef(name)) for name in ("vision", "audio"))
        both = Stages(vision=vision, audio=audio, decoder=FakeHandle())  # type: ignore[arg-type]
        assert run(both.encode("audio", b"x", "id")).ref.value == "audio"
        assert run(both.encode("image", b"x", "id")).ref.value == "vision"

    def test_an_error_passes_through(self) -> None:
        handle = FakeHandle(FakeRef(task_error(InvalidMedia("no picture"))))
        with pytest.raises(InvalidMedia):
            run(stages(handle).encode("image", b"x", "id"))

    def test_an_encoder_that_dies_after_its_report(self) -> None:
        """Ray's `next` gives a reference then, too: one that holds what it died of."""
        handle = FakeHandle(FakeRef(STATS))
        handle.response.end = FakeRef(ActorDiedError())
        handle.response.items.append(handle.response.end)
        with pytest.raises(ActorDiedError):
            run(stages(handle).encode("image", b"x", "id"))
        assert handle.response.cancelled == 1

    def test_cancelling_cancels_the_encoder(self) -> None:
        async def main() -> None:
            handle = FakeHandle(5.0)
            task = asyncio.ensure_future(stages(handle).encode("image", b"x", "id"))
            await until(lambda: handle.calls)
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert handle.response.cancelled == 1

        run(main())


class TestGenerate:
    request = ChatRequest((), SamplingParams())

    def test_references_are_top_level_arguments(self) -> None:
        # Serve resolves these on their way, and only these.
        handle = FakeHandle(Piece([]), Piece([]))
        media: list[EncodedMedia] = [encoded("a"), encoded("b")]

        async def main() -> int:
            return len([piece async for piece in stages(handle).generate(self.request, media)])

        assert run(main()) == 2
        assert handle.calls == [((self.request,), {"media_0": "a", "media_1": "b"})]
        assert handle.response.cancelled == 0

    @pytest.mark.parametrize("items", [[Piece([]), Piece([])], [Piece([]), 5.0]])
    def test_closing_cancels_the_decoder(self, items: list[Any]) -> None:
        handle = FakeHandle(*items)

        async def main() -> None:
            answer = stages(handle).generate(self.request, [])
            await anext(answer)
            await answer.aclose()

        run(main())
        assert handle.response.cancelled == 1

    def test_cancelling_cancels_the_decoder(self) -> None:
        handle = FakeHandle(5.0)

        async def main() -> None:
            answer = stages(handle).generate(self.request, [])
            task = asyncio.ensure_future(anext(answer))
            await until(lambda: handle.calls)
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        run(main())
        assert handle.response.cancelled == 1

    def test_an_error_passes_through(self) -> None:
        handle = FakeHandle(Piece([]), ValueError("x"))

        async def main() -> None:
            async for _ in stages(handle).generate(self.request, []):
                pass

        with pytest.raises(ValueError, match="x"):
            run(main())
