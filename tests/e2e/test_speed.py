"""The benchmark of speed against the running application."""

from __future__ import annotations

import pytest

from benchmarks.speed import main

from .cluster import Cluster


@pytest.mark.parametrize("options", [[], ["--identical"], ["--picture"]], ids=["distinct", "identical", "text"])
def test_waves(cluster: Cluster, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--base-url", f"{cluster.url}/v1", "--waves", "2", "--concurrency", "3", "--tokens", "24", *options])
    lines = capsys.readouterr().out.splitlines()
    rows = {name.strip(): cells for name, *cells in (line.strip("|").split("|") for line in lines)}
    assert {cell.strip() for cell in rows["tokens of an answer"]} == {"24"}
    for name in ("tokens in a second, until the last answer of a wave begins", "tokens out a second, from there on"):
        assert float(rows[name][0].replace(",", "")) > 0
