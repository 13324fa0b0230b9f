from __future__ import annotations

import copy
import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError
from tests.golden import GOLDEN

CONFIG: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """The golden config.json with one key set, or taken out (value None)."""
    config = copy.deepcopy(CONFIG)
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    if value is None:
        section.pop(key, None)
    else:
        section[key] = value
    return config


def test_golden(golden_path: Path) -> None:
    config = ModelConfig.from_pretrained(golden_path)
    assert config.decoder.head_size == 32
    assert config.vision.positions_per_side == 70
    assert config.vision.output_dim == config.decoder.hidden_size == 256
    assert config.audio_processor.chunk_samples == 480_000
    assert config.generation.eos_token_ids == ()


def test_mini(mini_path: Path) -> None:
    config = ModelConfig.from_pretrained(mini_path)
    assert config.generation.temperature == 0
    assert config.generation.repetition_penalty == 1
    assert config.generation.eos_token_ids == (4, 1)


def test_configurations_are_frozen() -> None:
    config = ModelConfig.from_dicts(CONFIG)
    with pytest.raises(FrozenInstanceError):
        config.decoder.hidden_size = 1  # type: ignore[misc]


def test_keys_that_we_do_not_use_are_left_alone() -> None:
    assert ModelConfig.from_dicts(changed("quantization", {"bits": 4})) == ModelConfig.from_dicts(CONFIG)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("hidden_size", None, "hidden_size"),
        ("vocab_size", None, "vocab_size"),
        ("vision_config", None, "vision_config"),
        ("audio_config", [], "audio_config"),
        ("audio_config.n_mels", None, "n_mels"),
        ("vision_config.patch_size", None, "patch_size"),
        ("hidden_size", "256", "hidden_size"),
        ("hidden_size", 256.0, "hidden_size"),
        ("hidden_size", True, "hidden_size"),
        ("hidden_size", 0, "hidden_size"),
        ("vocab_size", -512, "vocab_size"),
        ("rms_norm_eps", "tiny", "rms_norm_eps"),
        ("tie_word_embeddings", 1, "tie_word_embeddings"),
        ("drop_vision_last_layer", "no", "drop_last_layer"),
        ("query_num", 0, "query_num"),
        ("num_attention_heads", 7, "num_attention_heads"),
        ("num_key_value_heads", 3, "num_key_value_heads"),
        ("audio_config.output_dim", 128, "output_dim"),
        ("audio_config.n_head", 5, "n_head"),
        ("audio_config.n_ctx", 1000, "n_ctx"),
        ("vision_config.num_attention_heads", 5, "num_attention_heads"),
        ("vision_config.num_channels", 4, "num_channels"),
        ("vision_config.image_size", 7, "image_size"),
        ("vision_config.hidden_act", "gelu", "hidden_act"),
        ("head_dim", 7, "head_dim"),
    ],
)
def test_a_key_that_can_not_be_used_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ModelConfig.from_dicts(changed(path, value))


def test_dropping_the_only_layer() -> None:
    config = changed("vision_config.num_hidden_layers", 1) | {"drop_vision_last_layer": True}
    with pytest.raises(CheckpointError, match="drop_vision_last_layer"):
        ModelConfig.from_dicts(config)


class TestPreprocessor:
    @pytest.mark.parametrize("nested", [False, True])
    def test_slicing_is_the_checkpoints(self, nested: bool) -> None:
        keys = {"max_slice_nums": 4, "scale_resolution": 224}
        config = ModelConfig.from_dicts(CONFIG, {"image_processor": keys} if nested else keys)
        assert (config.image_processor.max_slice_nums, config.image_processor.scale_resolution) == (4, 224)
        assert config.image_processor.patch_size == 14

    def test_mels_must_agree(self) -> None:
        with pytest.raises(CheckpointError, match="n_mels"):
            ModelConfig.from_dicts(CONFIG, {"audio_processor": {"n_mels": 80}})

    @pytest.mark.parametrize("section", ["image_processor", "audio_processor"])
    def test_an_empty_section_is_no_section(self, section: str) -> None:
        assert ModelConfig.from_dicts(CONFIG, {section: None}) == ModelConfig.from_dicts(CONFIG)

    @pytest.mark.parametrize("section", ["image_processor", "audio_processor"])
    def test_a_section_that_is_no_object(self, section: str) -> None:
        with pytest.raises(CheckpointError, match=section):
            ModelConfig.from_dicts(CONFIG, {section: ["Whisper"]})


class TestGeneration:
    def test_greedy(self) -> None:
        assert ModelConfig.from_dicts(CONFIG, None, {"do_sample": False}).generation.temperature == 0

    def test_eos_may_be_one_or_many(self) -> None:
        assert ModelConfig.from_dicts(CONFIG, None, {"eos_token_id": 3}).generation.eos_token_ids == (3,)
        assert ModelConfig.from_dicts(CONFIG, None, {"eos_token_id": [3, 5]}).generation.eos_token_ids == (3, 5)
        assert ModelConfig.from_dicts(changed("eos_token_id", 7)).generation.eos_token_ids == (7,)

    @pytest.mark.parametrize("key", ["temperature", "top_p", "top_k", "repetition_penalty", "eos_token_id"])
    def test_null_is_silence(self, key: str) -> None:
        assert ModelConfig.from_dicts(CONFIG, None, {key: None}) == ModelConfig.from_dicts(CONFIG)

    @pytest.mark.parametrize("key", ["temperature", "top_p", "top_k", "repetition_penalty", "eos_token_id"])
    def test_an_ill_typed_value_is_named(self, key: str) -> None:
        with pytest.raises(CheckpointError, match=key):
            ModelConfig.from_dicts(CONFIG, None, {key: "much"})


class TestDirectory:
    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such directory"):
            ModelConfig.from_pretrained(tmp_path / "nowhere")

    def test_no_config(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"config\.json is missing"):
            ModelConfig.from_pretrained(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
    def test_no_json_object(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            ModelConfig.from_pretrained(tmp_path)

    def test_the_directory_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(changed("hidden_size", None)))
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            ModelConfig.from_pretrained(tmp_path)


class TestReleasedSpellings:
    """What other versions of transformers write, and what we can't serve."""

    def test_rope_parameters(self) -> None:
        config = {k: v for k, v in CONFIG.items() if k != "rope_theta"}
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 7000.0}
        assert ModelConfig.from_dicts(config).decoder.rope_theta == 7000.0

    @pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
    def test_scaled_rope_is_refused(self, key: str) -> None:
        with pytest.raises(CheckpointError, match="yarn"):
            ModelConfig.from_dicts({**CONFIG, key: {"rope_type": "yarn", "factor": 2.0}})

    def test_other_activations_and_pixels_are_refused(self) -> None:
        with pytest.raises(CheckpointError, match="hidden_act"):
            ModelConfig.from_dicts({**CONFIG, "hidden_act": "gelu"})
        with pytest.raises(CheckpointError, match="slice_mode"):
            ModelConfig.from_dicts(CONFIG, {"image_processor": {"slice_mode": False}})
        with pytest.raises(CheckpointError, match="norm_mean"):
            ModelConfig.from_dicts(CONFIG, {"norm_mean": [0.48, 0.46, 0.41]})
        assert ModelConfig.from_dicts(CONFIG, {"norm_mean": [0.5, 0.5, 0.5], "image_processor": "MegrezO"})

    @pytest.mark.parametrize("generation", [{"top_p": 5}, {"repetition_penalty": 0}, {"eos_token_id": -1}])
    def test_defaults_that_would_refuse_every_request(self, generation: dict[str, Any]) -> None:
        with pytest.raises(CheckpointError):
            ModelConfig.from_dicts(CONFIG, {}, generation)
