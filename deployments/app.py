"""The graph: four deployments, wired. The only file that does so.

`serve_config.yaml` names `deployments.app:build`; its `args` are `AppArgs`, and what it says about
each deployment (replicas, queues, resources, user_config) overrides what stands here.
"""

# No `from __future__ import annotations` here: Serve reads the type of build()'s argument.
from ray.serve import Application

from pipeline.config import ModelConfig

from .decoder import LanguageDecoder
from .encoder import AudioEncoder, VisionEncoder
from .ingress import Ingress
from .settings import AppArgs


def build(args: AppArgs) -> Application:
    """Checks the checkpoint's configuration first, so that a wrong path is told at once."""
    ModelConfig.from_pretrained(args.checkpoint_path)
    return Ingress.bind(  # type: ignore[attr-defined]
        args,
        vision=VisionEncoder.bind(args),  # type: ignore[attr-defined]
        audio=AudioEncoder.bind(args),  # type: ignore[attr-defined]
        decoder=LanguageDecoder.bind(args),  # type: ignore[attr-defined]
    )
