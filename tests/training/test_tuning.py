"""What the switches train, and what becomes of adapters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file

from pipeline.errors import MegrezError
from pipeline.model.audio import AudioModel
from pipeline.model.vision import VisionModel
from training.collator import collate
from training.features import Featuriser
from training.model import OmniForTraining
from training.tuning import TuningArguments, apply_tuning, gather_encoders_whole, released_tensors, save_adapters

from .tiny import assistant, tone, user

SWITCHES = ("tune_vision_encoder", "tune_vision_proj", "tune_llm", "tune_audio_encoder", "tune_audio_proj")
AUDIO_PROJECTION = {"audio.audio.proj.weight", "audio.audio.proj.bias", "audio.audio.audio_bos_eos_token.weight"}
LORA = TuningArguments(use_lora=True, lora_r=4, lora_alpha=8, lora_target_modules=["q_proj", "v_proj", "down_proj"])


@pytest.fixture(scope="module")
def batch(tiny_path: Path) -> dict[str, Any]:
    featurise = Featuriser.from_pretrained(tiny_path)
    turns = [user("What is it?", Image.new("RGB", (112, 112), "red"), tone(440)), assistant("a red square")]
    return collate([featurise(turns)])


@pytest.fixture
def model(tiny_path: Path) -> OmniForTraining:
    return OmniForTraining.from_pretrained(tiny_path)


@pytest.fixture
def adapted(model: OmniForTraining, batch: dict[str, Any]) -> OmniForTraining:
    """A model whose adapters have been trained a little."""
    torch.manual_seed(0)
    apply_tuning(model, LORA)
    train(model, batch, steps=3)
    return model.eval()


def train(model: OmniForTraining, batch: dict[str, Any], steps: int = 1) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimiser.zero_grad()
        model.train()(**batch)["loss"].backward()
        optimiser.step()


def only(switch: str) -> TuningArguments:
    return TuningArguments(**{name: name == switch for name in SWITCHES})


def logits(model: OmniForTraining, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model.llm.lm_head(model.hidden(batch["input_ids"], batch["lengths"], batch["media"]))


def belongs(name: str, switch: str) -> bool:
    if name.startswith("audio."):
        return switch == ("tune_audio_proj" if name in AUDIO_PROJECTION else "tune_audio_encoder")
    prefixes = {"tune_vision_encoder": "vision.vpm.", "tune_vision_proj": "vision.resampler.", "tune_llm": "llm."}
    return name.startswith(prefixes.get(switch, "audio."))


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_trains_its_part_alone(switch: str, model: OmniForTraining, batch: dict[str, Any]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_tuning(model, only(switch))
    train(model, batch)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if belongs(name, switch)}
    assert changed


def test_token_embeddings_can_stay_as_they_are(model: OmniForTraining, batch: dict[str, Any]) -> None:
    before = model.llm.weight.clone()
    apply_tuning(model, TuningArguments(tune_embeddings=False))
    train(model, batch)
    assert torch.equal(model.llm.weight, before)
    assert model.llm.lm_head.weight is model.llm.weight
    assert all(p.requires_grad for name, p in model.llm.named_parameters() if name != "model.embed_tokens.weight")


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (only("none"), "every part is frozen"),
        (TuningArguments(use_lora=True, tune_llm=False), "needs tune_llm"),
    ],
)
def test_training_nothing_is_refused(tuning: TuningArguments, said: str, model: OmniForTraining) -> None:
    with pytest.raises(MegrezError, match=said):
        apply_tuning(model, tuning)


def test_adapters_for_modules_that_are_nowhere_are_refused(model: OmniForTraining) -> None:
    with pytest.raises(MegrezError, match=r"can be .*up_proj.*, not nowhere_proj"):
        apply_tuning(model, TuningArguments(use_lora=True, lora_target_modules=["q_proj", "nowhere_proj"]))
    with pytest.raises(MegrezError, match="not nothing"):
        apply_tuning(model, TuningArguments(use_lora=True, lora_target_modules=[]))


def test_with_lora_adapters_train_alone(model: OmniForTraining, batch: dict[str, Any]) -> None:
    apply_tuning(model, LORA)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, batch, steps=2)  # a first step leaves the lower halves: the upper ones begin at zero
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    targets = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    adapted = [f"llm.model.layers.{layer}.{target}" for layer in (0, 1) for target in targets]
    assert changed == {f"{name}.lora_{half}.default.weight" for name in adapted for half in "AB"}


def test_lora_beside_an_encoders_projection(model: OmniForTraining) -> None:
    apply_tuning(model, TuningArguments(use_lora=True, tune_vision_proj=True))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if ".lora_" not in name} == {
        name for name, _ in model.named_parameters() if name.startswith("vision.resampler.")
    }
    assert any(".lora_" in name for name in trained)


def test_released_tensors_are_merged(adapted: OmniForTraining, tiny_path: Path, batch: dict[str, Any]) -> None:
    base = load_file(tiny_path / "model.safetensors")
    merged = released_tensors(adapted, adapted.state_dict())
    assert merged.keys() == base.keys()
    targets = ("q_proj.weight", "v_proj.weight", "down_proj.weight")
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert changed == {name for name in base if name.startswith("llm.") and name.endswith(targets)}
    plain = OmniForTraining.from_pretrained(tiny_path)
    apart = (logits(adapted, batch) - logits(plain, batch)).abs().max()
    plain.load_state_dict(merged)
    assert apart > 0.1
    torch.testing.assert_close(logits(plain, batch), logits(adapted, batch), rtol=1e-4, atol=1e-4)


def test_released_tensors_leave_the_model_alone(adapted: OmniForTraining, batch: dict[str, Any]) -> None:
    before = logits(adapted, batch)
    released_tensors(adapted, adapted.state_dict())
    assert torch.equal(logits(adapted, batch), before)


def test_without_lora_the_tensors_are_the_models(model: OmniForTraining, tiny_path: Path) -> None:
    base, released = load_file(tiny_path / "model.safetensors"), released_tensors(model, model.state_dict())
    assert released.keys() == base.keys()
    assert all(torch.equal(released[name], tensor) for name, tensor in base.items())


@pytest.mark.parametrize("way", ["PeftModel", "inject"])
def test_peft_reads_the_adapters(
    way: str, adapted: OmniForTraining, tiny_path: Path, tmp_path: Path, batch: dict[str, Any]
) -> None:
    save_adapters(adapted, adapted.state_dict(), LORA, tiny_path, tmp_path)
    plain = OmniForTraining.from_pretrained(tiny_path)
    if way == "PeftModel":
        plain = PeftModel.from_pretrained(plain, tmp_path).eval().get_base_model()
    else:
        inject_adapter_in_model(LoraConfig.from_pretrained(tmp_path), plain)
        state = load_file(tmp_path / "adapter_model.safetensors")
        own = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
        assert set_peft_model_state_dict(plain, own).unexpected_keys == []
        plain.eval()
    torch.testing.assert_close(logits(plain, batch), logits(adapted, batch), rtol=1e-5, atol=1e-5)


def test_deepspeed_is_told_to_gather_encoders_whole(model: OmniForTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in with the signature of deepspeed.utils.set_z3_leaf_modules: DeepSpeed is not installed here."""
    told: list[Any] = []
    utils = ModuleType("deepspeed.utils")
    utils.set_z3_leaf_modules = lambda model, leaf_module_classes: told.append((model, leaf_module_classes))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deepspeed", ModuleType("deepspeed"))
    monkeypatch.setitem(sys.modules, "deepspeed.utils", utils)
    gather_encoders_whole(model)
    assert told == [(model, [VisionModel, AudioModel])]
