from __future__ import annotations

import base64
import io
import random

import pytest
from PIL import Image

from benchmarks.speed import Timed, Wave, main, picture, table

from .conftest import FakeServer

WAVE = Wave([Timed(1.0, 3.0, 600, 101), Timed(2.0, 6.0, 400, 201)])


def test_a_wave_reads_then_writes() -> None:
    assert WAVE.reading == pytest.approx(1000 / 2.0)
    assert WAVE.writing == pytest.approx((100 + 200) / (6.0 - 2.0))
    assert WAVE.whole == pytest.approx(302 / 6.0)


def test_the_table() -> None:
    lines = table([WAVE, Wave([Timed(0.5, 1.5, 600, 101)])]).splitlines()
    rows = {name.strip(): [cell.strip() for cell in cells] for name, *cells in (r.strip("|").split("|") for r in lines)}
    assert rows["ms to the first token"] == ["1,000.0", "500.0", "2,000.0"]
    assert rows["ms between tokens"] == ["20.00", "10.00", "20.00"]
    assert rows["tokens of a prompt"] == ["600", "400", "600"]


def test_no_picture_is_like_another() -> None:
    rng = random.Random(1)
    first, second = picture(720, 1480, rng), picture(720, 1480, rng)
    assert first != second
    with Image.open(io.BytesIO(base64.b64decode(first.split(",")[1]))) as image:
        assert image.size == (720, 1480)


def test_a_server_that_does_not_stream(server: FakeServer) -> None:
    with pytest.raises(SystemExit, match="streamed no text"):
        main(["--base-url", server.url, "--waves", "1", "--warm-up", "0", "--concurrency", "1"])


def test_a_server_that_refuses(server: FakeServer) -> None:
    server.reply = lambda body: (400, {})
    with pytest.raises(SystemExit, match=f"{server.url}: .*400"):
        main(["--base-url", server.url, "--waves", "1", "--concurrency", "2"])


def test_half_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--picture", "720"])
    assert "a width and a height" in capsys.readouterr().err
