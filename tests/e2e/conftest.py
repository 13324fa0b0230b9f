"""One cluster for the whole session, from the repository's own serve_config.yaml."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from .cluster import Cluster, wait_for


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    import ray

    cluster = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(cluster.folder))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address=f"127.0.0.1:{cluster.gcs}", logging_level="ERROR", log_to_driver=False)
            cluster.deploy()
            yield cluster
        finally:
            ray.shutdown()
            cluster.stop()


@pytest.fixture(autouse=True)
def _left_clean(cluster: Cluster) -> Iterator[None]:
    """Every test leaves every stage idle: nothing it started goes on."""
    yield
    wait_for(cluster.idle, 15, "idle stages")
