"""The ingress deployment: the HTTP API over handles to the three stages."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from pipeline.config import ModelConfig
from pipeline.fingerprint import fingerprint

from .api import build_api
from .completion import Completions
from .metrics import keep_setting
from .readiness import Readiness
from .service import Service
from .settings import AppArgs, IngressSettings, reread
from .stages import Stages


@serve.deployment
@serve.ingress()
class Ingress:
    def __init__(
        self, args: AppArgs, vision: DeploymentHandle, audio: DeploymentHandle, decoder: DeploymentHandle
    ) -> None:
        readiness = Readiness(serve.get_replica_context().app_name)
        config = ModelConfig.from_pretrained(args.checkpoint_path)
        stages, checkpoint = Stages(vision, audio, decoder), fingerprint(args.checkpoint_path)
        self.completions = Completions(config, stages, readiness, checkpoint)
        self.service = Service(self.completions, args.model)
        self.settings: IngressSettings | None = None
        keep_setting(self.service.set_gauges)

    def __serve_build_asgi_app__(self) -> Any:
        return build_api(self.service)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self.settings = reread(IngressSettings, user_config, self.settings)
        self.completions.configure(self.settings)

    async def stats(self) -> dict[str, float]:
        """Counters, for tests and for people who debug."""
        cache = self.completions.cache
        return {
            "active": self.service.active,
            "encoding": cache.encoding,
            "waiting": cache.waiting,
            "media_cached": len(cache),
            "media_cache_bytes": cache.bytes,
        }
