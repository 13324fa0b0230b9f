"""The default checkpoint is what its command makes."""

from __future__ import annotations

from pathlib import Path

from training.make_checkpoint import write_checkpoint

LIMIT = 16_000_000  # bytes; it lives in the repository


def test_the_committed_checkpoint_is_reproduced(mini_path: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    committed = {file.name: file.read_bytes() for file in mini_path.iterdir()}
    assert made.keys() == committed.keys()
    assert [name for name in made if made[name] != committed[name]] == []
    assert sum(map(len, committed.values())) < LIMIT


def test_the_seed_decides(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_checkpoint(tmp_path / str(seed), seed)
    first, second = ((tmp_path / str(seed) / "model.safetensors").read_bytes() for seed in (0, 1))
    assert first != second
