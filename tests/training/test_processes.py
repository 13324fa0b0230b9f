"""Programs at the same time: none is left running, and none works where another does."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from training.processes import locked, run_together


@pytest.mark.parametrize("names", [("fails", "long"), ("long", "fails")])
def test_when_a_part_fails_none_is_left_running(names: tuple[str, ...]) -> None:
    begin = time.monotonic()
    parts = {"fails": python("import sys; sys.exit(3)"), "long": python("import time; time.sleep(600)")}
    codes = run_together({name: parts[name] for name in names})
    assert codes == {"fails": 3, "long": -15}
    assert time.monotonic() - begin < 60


def test_parts_that_end_well_are_waited_for() -> None:
    assert run_together({str(n): python(f"import time; time.sleep({n})") for n in (0, 1)}) == {"0": 0, "1": 0}


def test_no_more_run_than_may_at_once(tmp_path: Path) -> None:
    """The others in their order, each as soon as one has ended; none when one has failed."""
    code = f"""
import pathlib, sys, time
here = pathlib.Path({str(tmp_path)!r})
(here / sys.argv[1]).touch()
time.sleep(0.5)
beside = list(here.iterdir())
(here / sys.argv[1]).unlink()
with open({str(tmp_path)!r} + ".log", "a") as log:
    print(sys.argv[1], "beside", len(beside) - 1, file=log)
sys.exit(int(sys.argv[2]))
"""
    parts = {name: [*python(code), name, "3" if name == "c" else "0"] for name in "abcd"}
    assert run_together({name: parts[name] for name in "ab"}, at_once=1) == {"a": 0, "b": 0}
    assert Path(f"{tmp_path}.log").read_text() == "a beside 0\nb beside 0\n"
    assert run_together({name: parts[name] for name in "acd"}, at_once=1) == {"a": 0, "c": 3}


def test_what_ends_well_is_done_though_others_fail(tmp_path: Path) -> None:
    """And as soon as it ends."""
    wait = f"import os, sys, time\nwhile not os.path.exists({str(tmp_path / 'ends')!r}): time.sleep(0.05)\nsys.exit(3)"
    parts = {"ends": python("pass"), "fails": python(wait)}
    assert run_together(parts, lambda name: (tmp_path / name).touch()) == {"ends": 0, "fails": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["ends"]


def test_two_runs_never_share_a_directory(tmp_path: Path) -> None:
    """Nor does one with the parts that a killed run has left behind."""
    part = f"subprocess.Popen([{sys.executable!r}, '-c', 'input()'], pass_fds=[lock])"
    killed = f"""
import os, pathlib, subprocess
from training.processes import locked
with locked(pathlib.Path({str(tmp_path)!r})) as lock:
    {part}
    os.kill(os.getpid(), 9)
"""
    with subprocess.Popen(python(killed), stdin=subprocess.PIPE, cwd=ROOT) as run:
        assert run.wait() == -9
        with pytest.raises(SystemExit, match=f"is at work in {tmp_path}"), locked(tmp_path):
            pass
    for _ in range(100):  # its input has ended, and so does the part
        with suppress(SystemExit), locked(tmp_path):
            return
        time.sleep(0.1)
    pytest.fail("the lock is held for ever")


def test_when_one_cannot_be_started_none_is_left_running(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    code = f"import time; time.sleep(3); open({str(alive)!r}, 'w')"
    with pytest.raises(FileNotFoundError):
        run_together({"first": python(code), "second": [str(tmp_path / "none")]})
    time.sleep(4)
    assert not alive.exists()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]
