"""A stage reads its own tensors, in any of their kinds, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.encoder import AudioStage, VisionStage
from pipeline.errors import CheckpointError, MegrezError
from pipeline.generator import Generator
from tests.golden import META

from .stored import STAGES, Weights, builders, load, write, write_sharded


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
from tests.pipeline.model.stored import load

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
