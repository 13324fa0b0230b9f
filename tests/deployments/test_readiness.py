from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from ray import serve
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
from ray.serve.schema import DeploymentStatusOverview

from deployments import readiness
from deployments.readiness import Readiness

from .fakes import run


class Controller:
    """`serve.status()` with the states that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.deployments: dict[str, DeploymentStatusOverview] = {}
        monkeypatch.setattr(serve, "status", self.status)

    def set(self, name: str, status: str, trigger: str = "CONFIG_UPDATE_STARTED", **replicas: int) -> None:
        # The controller counts replicas by the states' values: plain strings.
        self.deployments[name] = DeploymentStatusOverview(
            DeploymentStatus(status),
            DeploymentStatusTrigger(trigger),
            dict(replicas),
            "",  # type: ignore[arg-type]
        )

    def status(self) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(applications={"megrez": SimpleNamespace(deployments=self.deployments)})


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    return Controller(monkeypatch)


def test_ready_when_every_stage_is(controller: Controller) -> None:
    controller.set("Ingress", "HEALTHY", RUNNING=1)
    controller.set("VisionEncoder", "UPDATING", STARTING=1)
    health = run(Readiness("megrez").health())
    assert not health.ready
    assert health.stages["Ingress"].ready
    assert not health.stages["VisionEncoder"].ready
    assert health.stages["VisionEncoder"].model_dump() == {"status": "UPDATING", "running": 0, "ready": False}
    controller.set("VisionEncoder", "UPDATING", STARTING=1, RUNNING=1)
    assert run(Readiness("megrez").health()).ready


@pytest.mark.parametrize(
    ("status", "trigger", "ready"),
    [
        ("UPSCALING", "AUTOSCALING", True),
        ("DOWNSCALING", "AUTOSCALING", True),
        ("UPSCALING", "CONFIG_UPDATE_STARTED", False),
        ("UNHEALTHY", "AUTOSCALING", False),
    ],
)
def test_a_stage_that_wakes_up_is_waited_for(controller: Controller, status: str, trigger: str, ready: bool) -> None:
    controller.set("VisionEncoder", status, trigger, STARTING=1)
    assert run(Readiness("megrez").missing({"VisionEncoder"})) == ([] if ready else ["VisionEncoder"])


@pytest.mark.parametrize(
    ("status", "replicas", "ready"),
    [
        ("HEALTHY", {}, True),  # scaled to zero: the first request wakes it
        ("UPDATING", {"RUNNING": 1, "STOPPING": 1}, True),
        ("UPDATING", {}, False),
        ("UNHEALTHY", {"RUNNING": 1}, True),
        ("UNHEALTHY", {"STARTING": 2}, False),
        ("DEPLOY_FAILED", {}, False),
    ],
)
def test_states(controller: Controller, status: str, replicas: dict[str, int], ready: bool) -> None:
    controller.set("LanguageDecoder", status, **replicas)
    health = run(Readiness("megrez").health())
    assert health.ready is health.stages["LanguageDecoder"].ready is ready
    assert health.stages["LanguageDecoder"].running == replicas.get("RUNNING", 0)


def test_no_application_is_not_ready(controller: Controller) -> None:
    assert not run(Readiness("other").health()).ready
    assert run(Readiness("other").missing({"LanguageDecoder"})) == ["LanguageDecoder"]


def test_missing_names_what_a_request_needs(controller: Controller) -> None:
    controller.set("LanguageDecoder", "HEALTHY", RUNNING=1)
    controller.set("VisionEncoder", "UPDATING", STARTING=1)
    needs = Readiness("megrez")
    assert run(needs.missing({"LanguageDecoder"})) == []
    needs = Readiness("megrez")
    assert run(needs.missing({"LanguageDecoder", "VisionEncoder", "AudioEncoder"})) == ["AudioEncoder", "VisionEncoder"]


def test_the_controller_is_asked_once_a_second(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(readiness, "time", SimpleNamespace(monotonic=lambda: now))
    controller.set("Ingress", "HEALTHY", RUNNING=1)

    async def main() -> None:
        nonlocal now
        asked = Readiness("megrez")
        await asyncio.gather(*(asked.health() for _ in range(50)))
        assert controller.asked == 1
        now += 0.9
        await asked.health()
        assert controller.asked == 1
        now += 0.2
        assert (await asked.health()).ready
        assert controller.asked == 2

    run(main())


def test_a_silent_controller_is_asked_once(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question waits in a thread; what was known before holds meanwhile."""
    monkeypatch.setattr(readiness, "MAX_AGE", 0.0)
    monkeypatch.setattr(readiness, "PATIENCE", 0.05)
    controller.set("LanguageDecoder", "HEALTHY", RUNNING=1)
    answer, silence = serve.status, threading.Event()

    def silent() -> SimpleNamespace:
        asked = answer()
        silence.wait(10)
        return asked

    async def main() -> None:
        known = Readiness("megrez")
        assert (await known.health()).ready
        monkeypatch.setattr(serve, "status", silent)
        before = controller.asked
        for _ in range(4):
            assert (await known.health()).ready
        assert controller.asked == before + 1
        silence.set()
        await asyncio.sleep(0.05)
        controller.set("LanguageDecoder", "UNHEALTHY")
        assert not (await known.health()).ready

    run(main())


def test_an_old_answer_is_trusted_for_a_while(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(readiness, "time", SimpleNamespace(monotonic=lambda: now))
    controller.set("LanguageDecoder", "HEALTHY", RUNNING=1)

    def dead() -> None:
        raise RuntimeError("no controller")

    async def main() -> None:
        nonlocal now
        known = Readiness("megrez")
        assert (await known.health()).ready
        monkeypatch.setattr(serve, "status", dead)
        now += 2
        assert (await known.health()).ready
        now += readiness.TRUSTED
        assert not (await known.health()).ready
        assert await known.missing({"LanguageDecoder"}) == ["LanguageDecoder"]

    run(main())
