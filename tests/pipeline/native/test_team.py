from __future__ import annotations

import threading
import time
from typing import Any

import numba
import numpy as np
import pytest

from pipeline.native.llvm import atomic_add, atomic_load
from pipeline.native.team import COUNTERS, Team, claim, meet, take

SIZES = (1, 2, 3, 5)


@numba.njit(nogil=True)
def take_all(member, members, shared, pieces, times, takers):  # type: ignore
    """How often each piece was taken, and by whom; all begin together."""
    meet(shared, members)
    while True:
        piece = take(shared, 1)
        if piece >= pieces:
            return
        atomic_add(times, piece, 1)
        takers[piece] = member


@numba.njit(nogil=True)
def claim_all(member, members, shared, absent, count, size, times, owners, most):  # type: ignore
    """How often each thing was claimed, by whom, and the most at once; the first `absent` claim none."""
    meet(shared, members)
    while member >= absent:
        first, last = claim(shared, 1, member, members, count, size)
        if first == last:
            return
        most[member] = max(most[member], last - first)
        for i in range(first, last):
            atomic_add(times, i, 1)
            owners[i] = member


@numba.njit(nogil=True)
def rounds(member, members, shared, count, progress, early, late):  # type: ignore
    """Each member says that it has come before it meets the others, and looks for them afterwards."""
    for i in range(count):
        atomic_add(progress, member, 1)
        meet(shared, members)
        for other in range(members):
            if atomic_load(progress, other) < i + 1:
                early[member] += 1
        meet(shared, members)
        for other in range(members):
            if atomic_load(progress, other) > i + 2:
                late[member] += 1


def everyone(team: Team) -> list[tuple[int, int]]:
    """(member, members) of a run, in order."""
    seen: list[tuple[int, int]] = []
    team.run(lambda member, members, shared: seen.append((member, members)))
    return sorted(seen)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 36, 100_003])
@pytest.mark.parametrize("members", SIZES)
def test_everything_is_claimed_once(members: int, count: int, size: int) -> None:
    team = Team(members, 2)
    for absent in {0, members - 1}:  # who has much to do is helped, by one if need be
        times, owners, most = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(members, np.int64)
        team.run(claim_all, absent, count, size, times, owners, most)
        assert (times == 1).all()
        assert most.max() <= size
        assert (owners >= absent).all()


def test_one_takes_what_lies_next_to_each_other() -> None:
    shared = np.zeros(COUNTERS + 2, np.int64)
    pieces = [claim(shared, 0, 0, 2, 10, 2) for _ in range(6)]
    assert pieces == [(0, 2), (2, 4), (4, 5), (9, 10), (7, 9), (5, 7)]  # then the other's, from its end
    assert claim(shared, 0, 0, 2, 10, 2) == claim(shared, 0, 1, 2, 10, 2) == (10, 10)


@pytest.mark.parametrize("members", SIZES)
def test_members_are_threads(members: int) -> None:
    threads: dict[int, int] = {}

    def note(member: int, members: int, shared: np.ndarray) -> None:
        threads[member] = threading.get_ident()
        meet(shared, members)  # all are there at once

    team = Team(members, 0)
    for _ in range(3):
        threads.clear()
        team.run(note)
        assert sorted(threads) == list(range(members))
        assert len(set(threads.values())) == members
        assert threads[0] == threading.get_ident()


@pytest.mark.parametrize("members", SIZES)
def test_every_piece_is_taken_once(members: int) -> None:
    team, pieces = Team(members, 2), 300_000
    for _ in range(3):
        times, takers = np.zeros(pieces, np.int64), np.full(pieces, -1)
        team.run(take_all, pieces, times, takers)
        assert (times == 1).all()
        assert takers.min() >= 0
        assert takers.max() < members


def test_each_run_begins_with_zeros() -> None:
    seen = []

    def note(member: int, members: int, shared: np.ndarray) -> None:
        seen.append(shared.copy())
        shared += 3

    team = Team(1, 7)
    team.run(note)
    team.run(note)
    assert [s.tolist() for s in seen] == [[0] * (COUNTERS + 7)] * 2
    assert seen[0].dtype == np.int64


@pytest.mark.parametrize("members", SIZES)
def test_nobody_passes_before_all_have_come(members: int) -> None:
    early, late = np.zeros(members, np.int64), np.zeros(members, np.int64)
    progress = np.zeros(members, np.int64)
    Team(members, 0).run(rounds, 1000, progress, early, late)
    assert progress.tolist() == [1000] * members
    assert not early.any()
    assert not late.any()


@pytest.mark.parametrize("last", range(3))
def test_all_wait_for_the_last(last: int) -> None:
    came: list[int] = []
    found: list[int] = []

    def walk(member: int, members: int, shared: np.ndarray) -> None:
        if member == last:
            time.sleep(0.1)
        came.append(member)
        meet(shared, members)
        found.append(len(came))

    Team(3, 0).run(walk)
    assert came[-1] == last
    assert found == [3, 3, 3]


def test_resize() -> None:
    team = Team(1, 0)
    for members in (3, 1, 2, 2, 5):
        team.resize(members)
        assert team.members == members
        assert everyone(team) == [(member, members) for member in range(members)]


def test_a_team_has_a_member() -> None:
    with pytest.raises(AssertionError):
        Team(0, 0)


def test_runs_of_two_threads_follow_each_other() -> None:
    team = Team(3, 1)
    inside: list[int] = []
    mixed: list[tuple[int, ...]] = []

    def work(member: int, members: int, shared: np.ndarray, caller: int) -> None:
        inside.append(caller)
        time.sleep(0.002)
        if set(inside) != {caller}:
            mixed.append(tuple(inside))
        inside.remove(caller)

    def call(caller: int) -> None:
        for _ in range(20):
            team.run(work, caller)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not mixed
    assert not inside


def test_resizing_waits_for_the_run() -> None:
    team, begun, sizes = Team(2, 0), threading.Event(), []

    def work(member: int, members: int, shared: np.ndarray) -> None:
        begun.set()
        time.sleep(0.1)
        sizes.append(members)
        meet(shared, members)

    caller = threading.Thread(target=team.run, args=(work,))
    caller.start()
    begun.wait()
    team.resize(3)
    assert sizes == [2, 2]
    caller.join()
    assert everyone(team) == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("failing", [(0, 1, 2), (1,), (2,)])
def test_an_error_comes_out_of_the_run(failing: tuple[int, ...]) -> None:
    def fail(member: int, members: int, shared: np.ndarray, what: Any) -> None:
        if member in failing:
            raise KeyError(what)

    team = Team(3, 0)
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            team.run(fail, "lost")
        assert everyone(team) == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("failing", range(3))
def test_nobody_waits_for_one_that_failed(failing: int) -> None:
    returned: list[int] = []

    def fail(member: int, members: int, shared: np.ndarray) -> None:
        if member == failing:
            raise KeyError("lost")
        for _ in range(3):
            meet(shared, members)
        time.sleep(0.05)
        returned.append(member)

    team = Team(3, 0)
    for _ in range(2):
        returned.clear()
        with pytest.raises(KeyError, match="lost"):
            team.run(fail)
        assert sorted(returned) == sorted({0, 1, 2} - {failing}), "all have returned when the error comes out"
        assert everyone(team) == [(0, 3), (1, 3), (2, 3)]
