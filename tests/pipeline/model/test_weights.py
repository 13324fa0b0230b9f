from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import ModelConfig
from pipeline.encoder import AudioStage, VisionStage
from pipeline.errors import CheckpointError, MegrezError
from pipeline.generator import Generator
from pipeline.model.attention import TorchAttention
from pipeline.model.audio import AudioModel
from pipeline.model.decoder import DecoderModel
from pipeline.model.vision import VisionModel
from pipeline.model.weights import load_stage
from tests.golden import GOLDEN, META, tensors

CONFIG: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def golden_tensors() -> Weights:
    return tensors()


@pytest.fixture
def weights(golden_tensors: Weights) -> Weights:
    return dict(golden_tensors)


def write(path: Path, weights: Weights, config: dict[str, Any] | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    save_file(weights, path / "model.safetensors")
    return path


def write_sharded(path: Path, weights: Weights, shards: int = 5) -> dict[str, str]:
    """Shards in the order of names, as exporters write them; returns the index's map."""
    (path / "config.json").write_text(json.dumps(CONFIG))
    names = sorted(weights)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[i * len(names) // shards : (i + 1) * len(names) // shards]}
        save_file(part, path / file)
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def builders(path: Path) -> dict[str, Callable[[], torch.nn.Module]]:
    config = ModelConfig.from_pretrained(path)
    return {
        "llm": lambda: DecoderModel(config.decoder, TorchAttention()),
        "vision": lambda: VisionModel(config.vision, TorchAttention()),
        "audio": lambda: AudioModel(config.audio, TorchAttention()),
    }


def load(path: Path, stage: str, **options: Any) -> Any:
    settings = {"dtype": torch.float32, "device": torch.device("cpu")} | options
    return load_stage(builders(path)[stage], path, **settings)


STAGES = ["llm", "vision", "audio"]


class TestReads:
    @pytest.mark.parametrize("stage", STAGES)
    def test_a_stage_reads_its_own_tensors_only(self, tmp_path: Path, weights: Weights, stage: str) -> None:
        read: list[tuple[str, str]] = []
        model = load(write(tmp_path, weights), stage, on_read=lambda *item: read.append(item))
        own = [name for name in weights if name.startswith(f"{stage}.")]
        assert sorted(name for _, name in read) == sorted(own)
        state = model.state_dict()
        for name in own:
            assert torch.equal(state[name.removeprefix(f"{stage}.")], weights[name])
        assert not any(p.is_meta or p.requires_grad for p in model.parameters())
        assert not model.training

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_stage_opens_only_the_files_of_its_tensors(self, tmp_path: Path, weights: Weights, stage: str) -> None:
        weight_map = write_sharded(tmp_path, weights)
        own = {file for name, file in weight_map.items() if name.startswith(f"{stage}.")}
        others = set(weight_map.values()) - own
        assert others, "the test needs a shard without this stage"
        for file in others:  # a file that is opened at all would be noticed
            (tmp_path / file).write_bytes(b"not safetensors")
        read: list[tuple[str, str]] = []
        model = load(tmp_path, stage, on_read=lambda *item: read.append(item))
        assert {file for file, _ in read} == own
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, weights[f"{stage}.{name}"])

    def test_peak_memory(self, golden_path: Path, tmp_path: Path, weights: Weights) -> None:
        """Beside 200 MB of language model, the audio stage's process stays small."""
        vocab = 100_000
        weights["llm.model.embed_tokens.weight"] = torch.ones(vocab, 256)
        weights["llm.lm_head.weight"] = torch.ones(vocab, 256)
        write(tmp_path, weights, {"vocab_size": vocab})
        command = [sys.executable, "-c", PEAK, str(golden_path), str(tmp_path)]
        audio, llm = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert audio < 30_000, "kB while loading the audio stage"
        assert llm > 190_000, "kB: the measure must see a stage that is large"


# VmHWM is the process's own; ru_maxrss would inherit the parent's peak. The golden checkpoint is
# loaded first, so that what torch itself imports and allocates on the way is not counted.
PEAK = """
import sys
import torch
from pathlib import Path
from tests.pipeline.model.test_weights import load

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

def grown(path, stage):
    before = peak()
    model = load(Path(path), stage)
    sum(float(p.sum()) for p in model.parameters())
    return peak() - before

for stage in ("audio", "llm"):
    grown(sys.argv[1], stage)
print(grown(sys.argv[2], "audio"), grown(sys.argv[2], "llm"))
"""


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


class TestTied:
    TIED: dict[str, Any] = {"tie_word_embeddings": True}  # noqa: RUF012

    def test_without_a_stored_head(self, tmp_path: Path, weights: Weights) -> None:
        del weights["llm.lm_head.weight"]
        model = load(write(tmp_path, weights, self.TIED), "llm")
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert torch.equal(model.lm_head.weight, weights["llm.model.embed_tokens.weight"])

    def test_with_an_equal_head(self, tmp_path: Path, weights: Weights) -> None:
        weights["llm.lm_head.weight"] = weights["llm.model.embed_tokens.weight"].clone()
        model = load(write(tmp_path, weights, self.TIED), "llm")
        assert model.lm_head.weight is model.model.embed_tokens.weight

    def test_a_differing_head_is_refused(self, tmp_path: Path, weights: Weights) -> None:
        with pytest.raises(CheckpointError, match=r"llm\.lm_head\.weight"):
            load(write(tmp_path, weights, self.TIED), "llm")

    def test_an_ill_shaped_head_is_refused(self, tmp_path: Path, weights: Weights) -> None:
        weights["llm.lm_head.weight"] = torch.zeros(7, 256)
        with pytest.raises(CheckpointError, match=r"llm\.lm_head\.weight"):
            load(write(tmp_path, weights, self.TIED), "llm")

    def test_untied_needs_its_head(self, tmp_path: Path, weights: Weights) -> None:
        del weights["llm.lm_head.weight"]
        with pytest.raises(CheckpointError, match=r"llm\.lm_head\.weight"):
            load(write(tmp_path, weights), "llm")


class TestKinds:
    @pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
    @pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float32])
    def test_stored_and_computed_types(
        self, tmp_path: Path, weights: Weights, stored: torch.dtype, wanted: torch.dtype
    ) -> None:
        converted = {name: tensor.to(stored) for name, tensor in weights.items()}
        model = load(write(tmp_path, converted), "audio", dtype=wanted)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, converted[f"audio.{name}"].to(wanted))

    def test_exported_rotary_frequencies_are_ignored(self, tmp_path: Path, weights: Weights) -> None:
        exported = weights | {"llm.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16)}
        plain, again = (load(write(tmp_path, tensors), "llm") for tensors in (weights, exported))
        assert all(
            torch.equal(ours, theirs)
            for ours, theirs in zip(plain.state_dict().values(), again.state_dict().values(), strict=True)
        )

    @pytest.mark.parametrize("kind", ["float16", "int8", "fp32"])
    @pytest.mark.parametrize("stage", [Generator, VisionStage, AudioStage])
    def test_an_unknown_type_is_refused(self, golden_path: Path, stage: Any, kind: str) -> None:
        with pytest.raises(MegrezError, match="float32, bfloat16"):
            stage.from_pretrained(golden_path, device="cpu", dtype=kind)


def test_golden_names_are_all_ours(golden_path: Path) -> None:
    ours = {
        prefix + "." + name: list(p.shape)
        for prefix, build in builders(golden_path).items()
        for name, p in build().named_parameters()
    }
    assert ours == META["weights"]
