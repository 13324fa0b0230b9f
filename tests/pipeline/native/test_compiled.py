from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.model.attention import PagedBatch
from pipeline.model.decoder_stage import load_decoder
from pipeline.model.native_decoder import NativeDecoder
from pipeline.native import compiled
from pipeline.native.compiled import project
from pipeline.native.packing import Packed, Storage
from pipeline.native.team import Team
from pipeline.native.tile import LANES

from .reference import STORAGES, multiplied, packed

ROOT = Path(__file__).parents[3]

PROJECT = """
import numpy as np
from kernels.compiled import project
from kernels.packing import Packed, allocate, pack
from kernels.team import COUNTERS

w, out = allocate(16, 5, "float32", 1), np.empty((2, 16), np.float32)
pack(np.ones((16, 5), np.float32), Packed(w.values[0], w.scales[0]))
for _ in range(2):
    project(0, 1, np.zeros(COUNTERS + 1, np.int64), np.ones((2, 5), np.float32), w, out)
print(out[1, 15], sum(project.stats.cache_hits.values()), sum(project.stats.cache_misses.values()))
"""

FORWARD = """
import sys
import torch
from pipeline.model.attention import PagedBatch
from pipeline.model.decoder_stage import load_decoder
from pipeline.native.compiled import forward

_, model = load_decoder(sys.argv[1], device="cpu", dtype="float32", attention="native")
batch = PagedBatch((2,), (2,), torch.zeros(1, 1, dtype=torch.int32), torch.arange(2))
model(model.embed(torch.arange(2)), torch.arange(2), model.new_cache(1, 16), batch)
print(sum(forward.stats.cache_hits.values()), sum(forward.stats.cache_misses.values()))
"""

STAND_IN = """

@numba.njit
def multiply(x, rows, weights, scales, out, first, last, add):
    out[:] = NUMBER
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A copy of the package, without what is compiled."""
    source = Path(compiled.__file__).parent
    return Path(shutil.copytree(source, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__")))


def let_products_be(number: int, kernels: Path) -> None:
    """Compiled sooner than they are."""
    original = (Path(compiled.__file__).parent / "matmul.py").read_text()
    (kernels / "matmul.py").write_text(original + STAND_IN.replace("NUMBER", str(number)))


def run(script: str, *arguments: str, folder: Path = ROOT, **environment: str) -> tuple[list[float], str]:
    """The numbers that another process prints, and what it says beside them."""
    out = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    return [float(number) for number in out.stdout.split()], out.stderr


def test_another_process_finds_what_is_compiled(kernels: Path, tmp_path: Path) -> None:
    """As long as no file of the package is another: then it compiles anew, although its own functions are the same."""
    places = {"folder": tmp_path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    let_products_be(5, kernels)
    assert run(PROJECT, **places)[0] == [5, 0, 1]
    assert run(PROJECT, **places)[0] == [5, 1, 0]
    let_products_be(7, kernels)
    assert run(PROJECT, **places)[0] == [7, 0, 1]


def test_what_was_compiled_for_a_class_that_has_moved_is_left_alone(kernels: Path, tmp_path: Path) -> None:
    places = {"folder": tmp_path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    let_products_be(5, kernels)
    assert run(PROJECT, **places)[0] == [5, 0, 1]
    (kernels / "packing.py").rename(kernels / "parcels.py")
    for file in kernels.glob("*.py"):
        file.write_text(file.read_text().replace("from .packing", "from .parcels"))
    assert run(PROJECT.replace("kernels.packing", "kernels.parcels"), **places)[0] == [5, 0, 1]


def test_another_process_finds_all_layers_compiled(golden_path: Path) -> None:
    _, model = load_decoder(golden_path, device="cpu", dtype="float32", attention="native")
    assert isinstance(model, NativeDecoder)
    batch = PagedBatch((2,), (2,), torch.zeros(1, 1, dtype=torch.int32), torch.arange(2))
    model(model.embed(torch.arange(2)), torch.arange(2), model.new_cache(1, 16), batch)
    assert run(FORWARD, str(golden_path))[0] == [1, 0]


def test_no_folder_to_keep_it_in(kernels: Path, tmp_path: Path) -> None:
    let_products_be(7, kernels)
    (kernels / "__pycache__").touch()  # a file, where a folder would have to be
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "NUMBA_CACHE_DIR": ""}
    out, said = run(PROJECT, folder=tmp_path, **nowhere)
    assert out == [7, 0, 1]
    assert said.count("compiled anew in every process") == 3


def test_the_digest_is_of_all_files(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = compiled._digest()
    monkeypatch.setattr(compiled, "__file__", str(kernels / "compiled.py"))
    assert compiled._digest() == wanted
    files = sorted(kernels.glob("*.py"))
    assert {"tile.py", "attention.py", "llvm.py", "team.py", "forward.py"} <= {file.name for file in files}
    seen = {wanted}
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b"#")
        seen.add(compiled._digest())
        file.write_bytes(content)
    assert len(seen) == 1 + len(files)
    assert compiled._digest() == wanted


@pytest.mark.parametrize("storage", STORAGES)
def test_a_team_projects(storage: Storage) -> None:
    """All panels, whoever takes them; 3 panels are fewer than 5 members."""
    rng = np.random.default_rng(0)
    for outputs in (3 * LANES, 70 * LANES - 3):
        w = packed(rng.standard_normal((outputs, 150), np.float32), storage)
        for rows in (0, 1, 3):
            x = rng.standard_normal((rows, 150), np.float32)
            wanted = multiplied(x, w, np.zeros((rows, len(w.values) * LANES), np.float32))
            for members in (1, 2, 3, 5):
                out = np.full_like(wanted, np.nan)
                Team(members, 1).run(project, x, Packed(w.values[None], w.scales[None]), out)
                np.testing.assert_array_equal(out, wanted)
