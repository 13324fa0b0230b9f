from __future__ import annotations

import pytest
import torch

from benchmarks.engine.projection import DECODER, H100, PATCHES, PUBLISHED, VISION, encode, rows, table
from benchmarks.engine.roofline import layer_weights
from pipeline.model.attention import TorchAttention
from pipeline.model.vision import VisionModel


def test_the_language_model_is_the_published_one() -> None:
    assert layer_weights(DECODER) / 1e9 == pytest.approx(2.29, abs=0.01)
    assert DECODER.vocab_size * DECODER.hidden_size / 1e9 == pytest.approx(0.31, abs=0.005)


def test_a_slice_costs_what_its_layers_multiply() -> None:
    with torch.device("meta"):
        model = VisionModel(VISION, TorchAttention())
    layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name and p.dim() == 2)
    work = encode(VISION, 2, PATCHES)
    attention = 2 * 27 * 4 * PATCHES**2 * 1152
    assert work.flops == pytest.approx(2 * 2 * PATCHES * layers + attention)
    assert work.nbytes == pytest.approx(2 * layers)


def test_nobody_is_faster_than_the_roofline() -> None:
    by_name = {row.what: row for row in rows()}
    assert {row.published for row in by_name.values()} == {None, *PUBLISHED.values()}
    assert all(row.published is None or row.published < row.tokens_a_second for row in by_name.values())
    # One at a time every weight is read for every token: 5.2 GB of them and some cache.
    assert by_name["out, 1 at a time"].tokens_a_second == pytest.approx(H100.bandwidth / 5.25e9, rel=0.02)
    assert by_name["out, 1 at a time"].bound_by == "memory"
    assert by_name["in, the language model alone"].bound_by == "arithmetic"


def test_the_table_has_every_row() -> None:
    lines = table().splitlines()
    assert len(lines) == 2 + len(rows())
    assert len({line.count("|") for line in lines}) == 1
