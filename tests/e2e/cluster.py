"""A real Ray cluster in processes of its own, driven as its users drive it: `ray start`, `serve deploy`."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from openai import AsyncOpenAI, OpenAI

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STAGES = ("Ingress", "VisionEncoder", "AudioEncoder", "LanguageDecoder")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def default_config() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "serve_config.yaml").read_text()))


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, what: str = "condition") -> Any:
    """Polls until the condition holds; returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except (httpx.HTTPError, ConnectionError):
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.05)


class Process:
    """A process in a group of its own, with its output in a file; ended with everything it started."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        self._file = log.open("wb")
        self._popen = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """Politely, then what is left of it by force."""
        family = self._family()
        self._popen.terminate()
        psutil.wait_procs(family, timeout=20)
        self.kill(family)

    def kill(self, family: list[psutil.Process] | None = None) -> None:
        """As if its machine had lost power."""
        for process in self._family() if family is None else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()
        self._file.close()

    def _family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._popen.pid)
            return [parent, *parent.children(recursive=True)]
        return []


class Server:
    """An address that speaks OpenAI's API."""

    def __init__(self, port: int, model: str) -> None:
        self.port, self.model = port, model
        self.url = f"http://127.0.0.1:{port}"

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def post(self, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        """A raw chat completion, for what the client would never send."""
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=120)

    def ready(self) -> bool:
        return httpx.get(f"{self.url}/health", timeout=5).status_code == 200


class Cluster(Server):
    """One head node, and the application deployed from a configuration."""

    def __init__(self) -> None:
        super().__init__(free_port(), default_config()["applications"][0]["args"]["model"])
        self.folder = Path(tempfile.mkdtemp(prefix="mz", dir="/tmp"))  # Ray's socket paths must be short
        self.gcs, self.dashboard, self.metrics = free_port(), free_port(), free_port()
        self.env = {**os.environ, "RAY_TMPDIR": str(self.folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
        self.env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"  # nothing here is worth draining
        self.env.pop("RAY_ADDRESS", None)
        self.nodes = [
            self._start_node(
                "head",
                f"--head --port={self.gcs} --dashboard-port={self.dashboard}"
                f" --metrics-export-port={self.metrics} --num-cpus=2",
            )
        ]
        self.config = default_config()
        self.config["http_options"]["port"] = self.port
        wait_for(self._dashboard_up, what="Ray's dashboard")

    def deploy(self, config: dict[str, Any] | None = None) -> None:
        """`serve deploy`, then waits until all stages are ready."""
        config = config or self.config
        file = self.folder / "serve_config.yaml"
        file.write_text(yaml.safe_dump(config))
        before = self._deployed_at()
        subprocess.run(
            [BIN / "serve", "deploy", "-a", f"http://127.0.0.1:{self.dashboard}", str(file)],
            cwd=ROOT,
            env=self.env,
            check=True,
            capture_output=True,
            timeout=60,
        )
        wait_for(lambda: self._running(before), 90, "the application")
        wait_for(self.ready, 30, "readiness")

    def configured(self, changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The configuration with some of the deployments' options changed."""
        config = copy.deepcopy(self.config)
        for deployment in config["applications"][0]["deployments"]:
            for key, value in changes.get(deployment["name"], {}).items():
                old = deployment.get(key)
                deployment[key] = {**old, **value} if isinstance(old, dict) else value
        return config

    def handle(self, stage: str) -> Any:
        from ray import serve

        return serve.get_deployment_handle(stage, "megrez")

    def stats(self, stage: str) -> dict[str, float]:
        return dict(self.handle(stage).stats.remote().result(timeout_s=20))

    def idle(self) -> bool:
        """No request is anywhere, no block and no place in a queue is held."""
        stats = {stage: self.stats(stage) for stage in STAGES}
        held = [stats["LanguageDecoder"]["blocks_used"], stats["Ingress"]["encoding"]]
        held += [stats[stage][key] for stage in ("VisionEncoder", "AudioEncoder") for key in ("queued", "running")]
        return not any(held) and all(stage["active"] == 0 for stage in stats.values())

    def add_node(self, options: str) -> Process:
        node = self._start_node(f"node{len(self.nodes)}", f"--address=127.0.0.1:{self.gcs} {options}")
        self.nodes.append(node)
        return node

    def replica_logs(self) -> dict[str, str]:
        """Everything that each stage's replicas logged."""
        texts = dict.fromkeys(STAGES, "")
        for file in self.folder.glob("ray/session_latest/logs/serve/replica_megrez_*.log"):
            stage = file.name.split("_")[2]
            texts[stage] += file.read_text(errors="replace")
        return texts

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_node(self, name: str, options: str) -> Process:
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
        return Process([*command, *options.split()], self.env, self.folder / f"{name}.log")

    def _dashboard_up(self) -> bool:
        return httpx.get(f"http://127.0.0.1:{self.dashboard}/api/version", timeout=2).status_code in (200, 401, 403)

    def _application(self) -> Any:
        from ray import serve

        return serve.status().applications.get("megrez")

    def _deployed_at(self) -> float | None:
        application = self._application()
        return application.last_deployed_time_s if application else None

    def _running(self, before: float | None) -> bool:
        application = self._application()
        if application is None or application.last_deployed_time_s == before:
            return False
        if str(application.status.value) == "DEPLOY_FAILED":
            raise AssertionError(application.message)
        return str(application.status.value) == "RUNNING"
