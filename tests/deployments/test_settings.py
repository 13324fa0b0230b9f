"""Each YAML file that ships is loaded as `serve deploy` would, and checked as the replicas would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.protocol import MOST_ANSWERS, MOST_MESSAGES
from deployments.settings import (
    PROJECT,
    AppArgs,
    AudioSettings,
    DecoderSettings,
    EngineArgs,
    FetchSettings,
    IngressSettings,
    Settings,
    VisionSettings,
)
from pipeline.engine.memory import CacheBudget

SETTINGS: dict[str, type[Settings]] = {
    "Ingress": IngressSettings,
    "VisionEncoder": VisionSettings,
    "AudioEncoder": AudioSettings,
    "LanguageDecoder": DecoderSettings,
}
CONFIGS = sorted((PROJECT / "configs").glob("*.y*ml"))
FILES = [PROJECT / "serve_config.yaml", *CONFIGS]


def serve_configs(path: Path) -> Iterator[dict[str, Any]]:
    """Serve's own format, or a KubeRay RayService that carries it as a string."""
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if "applications" in document:
            yield document
        elif document.get("kind") == "RayService":
            yield yaml.safe_load(document["spec"]["serveConfigV2"])


def applications(path: Path) -> list[dict[str, Any]]:
    return [app for config in serve_configs(path) for app in config["applications"]]


def deployments(path: Path) -> dict[str, dict[str, Any]]:
    return {deployment["name"]: deployment for app in applications(path) for deployment in app["deployments"]}


def test_there_are_configs_for_other_situations() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
class TestFile:
    def test_serve_accepts_it(self, path: Path) -> None:
        configs = list(serve_configs(path))
        assert configs
        for config in configs:
            ServeDeploySchema.model_validate(config)

    def test_args(self, path: Path) -> None:
        for app in applications(path):
            assert app["import_path"] == "deployments.app:build"
            AppArgs.model_validate(app["args"])

    def test_deployments_are_the_four(self, path: Path) -> None:
        for app in applications(path):
            assert sorted(deployment["name"] for deployment in app["deployments"]) == sorted(SETTINGS)

    def test_user_configs(self, path: Path) -> None:
        for name, deployment in deployments(path).items():
            written = deployment.get("user_config") or {}
            assert SETTINGS[name].model_validate(written).model_dump(mode="json", exclude_unset=True) == written

    def test_decoder_queue_fits_the_replica(self, path: Path) -> None:
        decoder = deployments(path)["LanguageDecoder"]
        settings = DecoderSettings.model_validate(decoder.get("user_config") or {})
        # Else Serve's queue hides work from the engine's, and the engine never says 429.
        assert decoder["max_ongoing_requests"] >= settings.max_running + settings.max_waiting
        assert settings.max_batch_tokens >= settings.max_running

    def test_replicas_are_not_stopped_before_their_answers_end(self, path: Path) -> None:
        """Where load comes and goes; the default configuration is there to be stopped soon."""
        ingress = IngressSettings.model_validate(deployments(path)["Ingress"].get("user_config") or {})
        for deployment in deployments(path).values():
            seconds = deployment["graceful_shutdown_timeout_s"]
            assert seconds > (0 if path == FILES[0] else ingress.request_seconds)

    def test_ingress_answers_before_serve_does(self, path: Path) -> None:
        ingress = deployments(path)["Ingress"]
        settings = IngressSettings.model_validate(ingress.get("user_config") or {})
        assert ingress["max_ongoing_requests"] > settings.max_requests


def test_default_checkpoint_exists() -> None:
    for app in applications(FILES[0]):
        assert (AppArgs.model_validate(app["args"]).checkpoint_path / "config.json").is_file()


def test_default_fits_two_cores() -> None:
    def cpus(deployment: dict[str, Any]) -> float:
        return deployment.get("num_replicas", 1) * deployment.get("ray_actor_options", {}).get("num_cpus", 1)

    assert sum(cpus(deployment) for deployment in deployments(FILES[0]).values()) <= 2


def test_default_proxy_waits_longer_than_the_ingress() -> None:
    (config,) = serve_configs(FILES[0])
    settings = IngressSettings.model_validate(deployments(FILES[0])["Ingress"]["user_config"])
    assert config["http_options"]["request_timeout_s"] > settings.request_seconds


@pytest.mark.parametrize("cls", [*SETTINGS.values(), FetchSettings, EngineArgs])
def test_unknown_key(cls: type[Settings]) -> None:
    cls.model_validate({})
    with pytest.raises(ValidationError, match="max_mediaa\n  Extra inputs are not permitted"):
        cls.model_validate({"max_mediaa": 1})


@pytest.mark.parametrize("extra", [{"modell": "m"}, {"engine": {"blocksize": 16}}])
def test_unknown_argument(extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        AppArgs.model_validate({"checkpoint": "x", **extra})


@pytest.mark.parametrize("cls", [*SETTINGS.values(), FetchSettings, EngineArgs])
def test_every_number_must_be_positive(cls: type[Settings]) -> None:
    numbers = [name for name, value in cls().model_dump().items() if type(value) in (int, float)]
    if cls is EngineArgs:
        numbers = ["kv_cache_tokens", "kv_cache_bytes", "kv_cache_fraction", "block_size", "max_context"]
    assert numbers
    for name in numbers:
        with pytest.raises(ValidationError, match=name):
            cls.model_validate({name: -1})
        with pytest.raises(ValidationError, match=name):
            cls.model_validate({name: "many"})


@pytest.mark.parametrize(("name", "most"), [("max_messages", MOST_MESSAGES), ("max_answers", MOST_ANSWERS)])
def test_what_the_protocol_would_refuse_can_not_be_allowed(name: str, most: int) -> None:
    assert getattr(IngressSettings.model_validate({name: most}), name) == most
    with pytest.raises(ValidationError, match=name):
        IngressSettings.model_validate({name: most + 1})


def test_the_media_cache_can_be_off() -> None:
    assert IngressSettings(media_cache_bytes=0).media_cache_bytes == 0


@pytest.mark.parametrize("name", ["request_seconds", "batch_seconds"])
def test_nan_is_no_number_of_seconds(name: str) -> None:
    cls = IngressSettings if name in IngressSettings.model_fields else AudioSettings
    with pytest.raises(ValidationError, match=name):
        cls.model_validate({name: float("nan")})


@pytest.mark.parametrize(
    ("key", "value"),
    [("dtype", "float16"), ("attention", "eager"), ("checkpoint", None), ("engine", {"block_size": 0})],
)
def test_wrong_argument(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        AppArgs.model_validate({"checkpoint": "x", key: value})


def test_checkpoint_is_required() -> None:
    with pytest.raises(ValidationError, match="checkpoint"):
        AppArgs.model_validate({})


def test_an_empty_key_opens_no_door() -> None:
    # What is left of `api_keys: ["$KEY"]` when the variable isn't set.
    with pytest.raises(ValidationError, match="api_keys"):
        IngressSettings.model_validate({"api_keys": [""]})


def test_null_leaves_a_length_open() -> None:
    assert EngineArgs.model_validate({"max_context": None}).max_context is None
    assert DecoderSettings.model_validate({"default_max_tokens": None}).default_max_tokens is None


def test_relative_checkpoint_starts_at_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert AppArgs(checkpoint="checkpoints/x").checkpoint_path == PROJECT / "checkpoints" / "x"
    assert AppArgs(checkpoint=str(tmp_path)).checkpoint_path == tmp_path
    assert AppArgs(checkpoint="~/x").checkpoint_path == tmp_path / "x"


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        AppArgs(checkpoint="x").model = "other"  # type: ignore[misc]


class TestKvCache:
    def test_one_budget(self) -> None:
        assert EngineArgs().kv_cache == CacheBudget(tokens=32768)
        assert EngineArgs(kv_cache_tokens=64).kv_cache == CacheBudget(tokens=64)
        assert EngineArgs(kv_cache_bytes=10**9).kv_cache == CacheBudget(nbytes=10**9)
        assert EngineArgs(kv_cache_fraction=0.5).kv_cache == CacheBudget(fraction=0.5)

    def test_not_two(self) -> None:
        with pytest.raises(ValidationError, match="give one of kv_cache_tokens"):
            EngineArgs(kv_cache_tokens=64, kv_cache_fraction=0.5)

    @pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
    def test_a_fraction_of_memory(self, fraction: float) -> None:
        with pytest.raises(ValidationError, match="kv_cache_fraction"):
            EngineArgs(kv_cache_fraction=fraction)


class TestKernels:
    @pytest.mark.parametrize("kind", [{"device": "cuda"}, {"dtype": "bfloat16"}])
    def test_native_ones_compute_in_float32_on_a_cpu(self, kind: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match="native needs"):
            AppArgs.model_validate({"checkpoint": "x", "attention": "native", **kind})

    @pytest.mark.parametrize("kind", [{"device": "cpu", "dtype": "bfloat16"}, {"device": "cuda", "dtype": "float32"}])
    def test_flash_ones_compute_in_bfloat16_on_a_gpu(self, kind: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match="flash needs"):
            AppArgs.model_validate({"checkpoint": "x", "attention": "flash", **kind})
        AppArgs.model_validate({"checkpoint": "x", "attention": "flash", "device": "cuda", "dtype": "bfloat16"})

    @pytest.mark.parametrize("kind", [{"device": "cuda"}, {"dtype": "bfloat16"}, {"attention": "torch"}])
    def test_only_they_keep_weights_otherwise(self, kind: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match="weights other than auto"):
            AppArgs.model_validate({"checkpoint": "x", "weights": "int8", **kind})
        AppArgs.model_validate({"checkpoint": "x", "weights": "int8"})
