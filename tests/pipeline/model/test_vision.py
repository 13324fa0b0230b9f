from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import ModelConfig
from pipeline.errors import Cancelled
from pipeline.model.attention import TorchAttention
from pipeline.model.vision import PatchedSlice, VisionModel, bucketize, sincos_2d
from pipeline.model.weights import load_stage
from pipeline.omni import Omni
from tests.golden import DATA, GOLDEN, META, reference, relative_error


@pytest.fixture(scope="module")
def model(golden_path: Path) -> VisionModel:
    config = ModelConfig.from_pretrained(golden_path).vision
    return load_stage(
        lambda: VisionModel(config, TorchAttention()), golden_path, dtype=torch.float32, device=torch.device("cpu")
    )


def random_slice(rows: int, columns: int, seed: int = 0) -> PatchedSlice:
    rng = torch.Generator().manual_seed(seed)
    return PatchedSlice(torch.rand(rows * columns, 588, generator=rng) * 2 - 1, rows, columns)


@pytest.mark.parametrize("name", META["images"])
def test_golden_embeds(golden_omni: Omni, name: str) -> None:
    embeds = golden_omni.encode_image(DATA / META["images"][name]["path"])
    wanted = reference()[f"image/{name}/embeds"]
    assert embeds.shape[0] * embeds.shape[1] == META["images"][name]["tokens"]
    assert relative_error(embeds, wanted) < 1e-4


def test_position_buckets() -> None:
    wanted = json.loads((GOLDEN / "position_buckets.json").read_text())
    assert len(wanted) == 70
    for n, buckets in wanted.items():
        assert bucketize(int(n), 70).tolist() == buckets, n


@pytest.mark.parametrize("side", [1, 32, 70])
def test_buckets_stay_in_the_table(side: int) -> None:
    for n in (1, 2, 69, 71, 443, 1000):
        buckets = bucketize(n, side)
        assert len(buckets) == n
        assert (buckets.diff() >= 0).all()
        assert buckets[0] == 0
        assert buckets[-1] <= side - 1


def test_resampler_positions_against_the_plain_formula() -> None:
    dim, rows, columns = 16, 3, 4
    table = sincos_2d(dim, rows, columns)
    for row in range(rows):
        for column in range(columns):
            wanted = []
            for place in (column, row):
                angles = [place / 10000 ** (i / (dim / 4)) for i in range(dim // 4)]
                wanted += [*np.sin(angles), *np.cos(angles)]
            np.testing.assert_allclose(table[row * columns + column], wanted, atol=1e-6)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=2, max_size=6))
def test_a_slice_is_the_same_alone_and_among_others(model: VisionModel, sizes: list[tuple[int, int]]) -> None:
    slices = [random_slice(*size, seed=i) for i, size in enumerate(sizes)]
    together = model.encode(slices)
    for one, out in zip(slices, together, strict=True):
        torch.testing.assert_close(model.encode([one])[0], out, rtol=1e-4, atol=1e-5)


def test_real_slices_alone_and_together(golden_omni: Omni) -> None:
    stage = golden_omni._vision
    pictures = [DATA / "sample_image.jpg", DATA / "images" / "100284327.jpeg"]
    prepared = [stage.prepare(path.read_bytes()) for path in pictures]
    together = stage.encode([unit for p in prepared for unit in p.units])
    for p in prepared:
        outs, together = together[: len(p.units)], together[len(p.units) :]
        embeds = stage.assemble(p, outs).embeds
        alone = stage.assemble(p, stage.encode(p.units)).embeds
        assert relative_error(embeds, alone.numpy()) < 1e-5


def test_rows_and_columns_are_not_confused(model: VisionModel) -> None:
    patches = random_slice(2, 6).patches
    wide, high = model.encode([PatchedSlice(patches, 2, 6)])[0], model.encode([PatchedSlice(patches, 6, 2)])[0]
    assert (wide - high).norm() / high.norm() > 1e-3


def test_the_dropped_layer_is_not_needed(golden_path: Path, tmp_path: Path) -> None:
    config = json.loads((golden_path / "config.json").read_text()) | {"drop_vision_last_layer": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(golden_path / "model.safetensors")
    vision = ModelConfig.from_pretrained(tmp_path).vision
    read: list[str] = []
    model = load_stage(
        lambda: VisionModel(vision, TorchAttention()),
        tmp_path,
        dtype=torch.float32,
        device=torch.device("cpu"),
        on_read=lambda _, name: read.append(name),
    )
    assert len(model.vpm.encoder.layers) == 2
    assert not any("layers.2." in name for name in read)
    assert model.encode([random_slice(2, 3)])[0].shape == (64, 256)


def test_a_checkpoint_stops_the_batch(model: VisionModel) -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        model.encode([random_slice(2, 2)], stop)
    assert calls == 2
