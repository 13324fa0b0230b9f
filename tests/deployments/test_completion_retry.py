"""What a completion does when a replica dies or an object is lost."""

from __future__ import annotations

from collections import deque

import pytest
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors

from deployments.completion import ATTEMPTS
from pipeline.errors import InvalidRequest, Overloaded

from .completing import outcome, text
from .fakes import House, image, logged, pieces, run, task_error


def lost() -> BaseException:
    return task_error(ray_errors.ObjectLostError("ab", None, ""))


def test_a_lost_object_is_encoded_again_unnoticed(house: House) -> None:
    async def main() -> None:
        await text(house, [image()])
        house.stages.answers = deque([[lost()], pieces("again")])
        with logged() as lines:
            answer, trace = await outcome(house, [image()])
        assert answer == "again"
        assert [line.levelname for line in lines if line.getMessage().startswith("embeds_lost ")] == ["WARNING"]
        assert trace.cache == {"hit": 1, "miss": 1}
        assert trace.completion_tokens == 1

    run(main())
    assert house.stages.media == [["ref-1"], ["ref-1"], ["ref-2"]]
    assert house.idle()


def test_a_loss_that_stays_is_told_in_the_end(house: House) -> None:
    house.stages.answers = deque([[lost()]])
    with pytest.raises(ray_errors.ObjectLostError):
        run(text(house, [image()]))
    assert len(house.stages.requests) == len(house.stages.encoded) == ATTEMPTS
    assert house.idle()


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.ActorDiedError(),
        ray_errors.ActorUnavailableError("m", None),
        serve_errors.ReplicaUnavailableError("r"),
        task_error(ray_errors.ActorDiedError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_decoder_that_died_is_replaced(house: House, error: BaseException) -> None:
    house.stages.answers = deque([[error], pieces("again")])
    assert run(text(house, [image()])) == "again"
    assert len(house.stages.encoded) == 1
    assert (len(house.stages.requests), house.stages.open) == (2, 0)


def test_an_encoder_that_died_is_replaced(house: House) -> None:
    house.stages.encodings = deque([[ray_errors.ActorDiedError()], []])
    assert run(text(house, [image()])) == "Hello, world"


@pytest.mark.parametrize("error", [lost(), ray_errors.ActorDiedError()], ids=["lost", "died"])
def test_nothing_is_repeated_after_the_first_piece(house: House, error: BaseException) -> None:
    house.stages.answers = deque([[*pieces("a", "b")[:1], error]])
    with pytest.raises(type(error)):
        run(text(house))
    assert len(house.stages.requests) == 1
    assert house.idle()


def test_embeds_that_nobody_can_use_are_not_kept(house: House) -> None:
    async def main() -> None:
        house.stages.answers = deque([[task_error(OSError("no space left"))], pieces("again")])
        with pytest.raises(OSError):  # noqa: PT011 - its message is Ray's
            await text(house, [image()])
        assert await text(house, [image()]) == "again"

    run(main())
    assert house.stages.media == [["ref-1"], ["ref-2"]]


@pytest.mark.parametrize("error", [task_error(Overloaded("full")), task_error(InvalidRequest("no")), ValueError()])
def test_other_errors_are_not_repeated(house: House, error: BaseException) -> None:
    house.stages.answers = deque([[error]])
    with pytest.raises(type(error)):
        run(text(house))
    assert len(house.stages.requests) == 1
    assert house.idle()
