"""What can't be loaded is refused and named, and nothing is unpickled."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError

from .stored import CONFIG, Weights, load, write, write_sharded


class TestRefusals:
    @pytest.mark.parametrize(
        "name",
        ["llm.model.norm.weight", "vision.resampler.query", "audio.audio.blocks.0.attn.key.weight"],
    )
    def test_a_missing_tensor_is_named(self, tmp_path: Path, weights: Weights, name: str) -> None:
        del weights[name]
        with pytest.raises(CheckpointError, match=f"missing tensor: {name}"):
            load(write(tmp_path, weights), name.split(".")[0])

    @pytest.mark.parametrize("name", ["llm.model.layers.9.mlp.up_proj.weight", "vision.extra", "audio.audio.x"])
    def test_a_surplus_tensor_is_named(self, tmp_path: Path, weights: Weights, name: str) -> None:
        weights[name] = torch.zeros(1)
        with pytest.raises(CheckpointError, match=f"surplus tensor: {name}"):
            load(write(tmp_path, weights), name.split(".")[0])

    def test_a_tensor_of_no_stage_is_named(self, tmp_path: Path, weights: Weights) -> None:
        weights["video.conv.weight"] = torch.zeros(1)
        with pytest.raises(CheckpointError, match=r"video\.conv\.weight"):
            load(write(tmp_path, weights), "audio")

    def test_many_missing_tensors_are_counted(self, tmp_path: Path, weights: Weights) -> None:
        kept = {name: t for name, t in weights.items() if not name.startswith("vision.vpm.encoder")}
        missing = len(weights) - len(kept)
        with pytest.raises(CheckpointError, match=f"{missing} tensors: .* and {missing - 8} more"):
            load(write(tmp_path, kept), "vision")

    def test_an_ill_shaped_tensor(self, tmp_path: Path, weights: Weights) -> None:
        weights["llm.model.norm.weight"] = torch.zeros(255)
        with pytest.raises(CheckpointError, match=r"llm\.model\.norm\.weight has shape \[255\].* \[256\]"):
            load(write(tmp_path, weights), "llm")

    def test_a_transposed_tensor(self, tmp_path: Path, weights: Weights) -> None:
        name = "llm.model.layers.0.mlp.up_proj.weight"
        weights[name] = weights[name].T.contiguous()
        with pytest.raises(CheckpointError, match=name):
            load(write(tmp_path, weights), "llm")

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
    def test_a_tensor_of_no_floating_point(self, tmp_path: Path, weights: Weights, dtype: torch.dtype) -> None:
        weights["audio.audio.ln_post.bias"] = torch.zeros(64, dtype=dtype)
        with pytest.raises(CheckpointError, match=r"audio\.audio\.ln_post\.bias"):
            load(write(tmp_path, weights), "audio")

    @pytest.mark.parametrize("content", [b"", b"\x80\x04N.", bytes(100), b"{}" * 50])
    def test_a_broken_file(self, tmp_path: Path, weights: Weights, content: bytes) -> None:
        write(tmp_path, weights)
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load(tmp_path, "audio")

    def test_a_truncated_file(self, tmp_path: Path, weights: Weights) -> None:
        file = write(tmp_path, weights) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load(tmp_path, "audio")

    def test_no_weights(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
            load(tmp_path, "audio")

    @pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt"])
    def test_nothing_is_unpickled(self, tmp_path: Path, weights: Weights, file: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        torch.save(weights, tmp_path / file)
        with pytest.raises(CheckpointError):
            load(tmp_path, "audio")

    def test_a_pickle_in_disguise(self, tmp_path: Path, weights: Weights) -> None:
        write(tmp_path, weights)
        (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        with pytest.raises(CheckpointError):
            load(tmp_path, "audio")
        assert not (tmp_path / "exploded").exists()


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


class TestIndex:
    def rewrite(self, path: Path, change: Callable[[dict[str, str]], None]) -> None:
        index = path / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        change(content["weight_map"])
        index.write_text(json.dumps(content))

    def test_a_missing_file_is_named(self, tmp_path: Path, weights: Weights) -> None:
        write_sharded(tmp_path, weights)
        (tmp_path / "model-00001-of-00005.safetensors").unlink()
        with pytest.raises(CheckpointError, match="model-00001-of-00005"):
            load(tmp_path, "audio")

    @pytest.mark.parametrize("file", ["../outside.safetensors", "/outside.safetensors", "sub/../x.safetensors", ".."])
    def test_a_path_that_leaves_the_directory(self, tmp_path: Path, weights: Weights, file: str) -> None:
        root = tmp_path / "checkpoint"
        root.mkdir()
        write_sharded(root, weights)
        save_file(weights, tmp_path / "outside.safetensors")
        self.rewrite(root, lambda m: m.update({"audio.audio.ln_post.bias": file}))
        with pytest.raises(CheckpointError):
            load(root, "audio")

    def test_a_tensor_missing_from_the_index(self, tmp_path: Path, weights: Weights) -> None:
        write_sharded(tmp_path, weights)
        self.rewrite(tmp_path, lambda m: m.pop("audio.audio.ln_post.bias"))
        with pytest.raises(CheckpointError, match=r"audio\.audio\.ln_post\.bias"):
            load(tmp_path, "audio")

    def test_a_tensor_that_is_not_in_its_file(self, tmp_path: Path, weights: Weights) -> None:
        weight_map = write_sharded(tmp_path, weights)
        name = "audio.audio.ln_post.bias"
        wrong = next(file for file in weight_map.values() if file != weight_map[name])
        self.rewrite(tmp_path, lambda m: m.update({name: wrong}))
        with pytest.raises(CheckpointError, match=r"audio\.audio\.ln_post\.bias"):
            load(tmp_path, "audio")

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": null}'])
    def test_no_index(self, tmp_path: Path, weights: Weights, text: str) -> None:
        write_sharded(tmp_path, weights)
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match="index"):
            load(tmp_path, "audio")
