"""Request ids, log lines and metrics, as an operator meets them."""

from __future__ import annotations

import json
import secrets

import httpx

from .cluster import STAGES, Cluster, wait_for
from .media import SOUND, audio, image, noise_png, text

# But megrez_preemptions: Ray shows a counter from its first count on.
METRICS = (
    "megrez_requests",
    "megrez_requests_active",
    "megrez_tokens",
    "megrez_time_to_first_token_seconds_bucket",
    "megrez_time_per_output_token_seconds_bucket",
    "megrez_sequences_running",
    "megrez_sequences_waiting",
    "megrez_kv_blocks_used",
    "megrez_kv_blocks_kept",
    "megrez_prefix_tokens",
    "megrez_prefix_tokens_found",
    "megrez_kv_blocks_total",
    "megrez_batch_sequences_bucket",
    "megrez_encode_seconds_per_slice_bucket",
    "megrez_encode_seconds_per_second_bucket",
    "megrez_encode_batch_units_bucket",
    "megrez_encode_queued_units",
    "megrez_media_cache_lookups",
    "megrez_media_cache_bytes",
)


def test_request_id_in_and_out_and_in_every_stage(cluster: Cluster) -> None:
    name = f"test-{secrets.token_hex(6)}"
    picture = image(noise_png(secrets.randbits(30), 200, 200), "png")
    body = {
        "model": cluster.model,
        "messages": [{"role": "user", "content": [picture, audio(SOUND.read_bytes() + bytes(8)), text("?")]}],
        "max_tokens": 5,
        "ignore_eos": True,
    }
    response = cluster.post(body, {"x-request-id": name})
    assert response.headers["x-request-id"] == name
    assert name in response.json()["id"]
    wait_for(lambda: all(name in log for log in cluster.replica_logs().values()), 10, "log lines")
    lines = [line for line in cluster.replica_logs()["Ingress"].splitlines() if name in line and "completed {" in line]
    (fields,) = [json.loads(line[line.index("completed {") + 10 :]) for line in lines]
    assert fields["request_id"] == name
    assert (fields["status"], fields["images"], fields["audios"]) == (200, 1, 1)
    assert fields["completion_tokens"] == 5
    assert fields["image_tokens"] == 64
    assert set(fields["encode_seconds"]) == {"image", "audio"}
    slowest = max(fields["encode_seconds"].values())
    assert 0 < slowest + fields["prefill_seconds"] <= fields["ttft_seconds"] <= fields["seconds"]


def test_an_id_is_made_when_none_is_sent(cluster: Cluster) -> None:
    assert cluster.post({"model": cluster.model}).headers["x-request-id"]


def test_metrics_are_exported(cluster: Cluster) -> None:
    body = {
        "model": cluster.model,
        "messages": [{"role": "user", "content": [image(noise_png(5, 300, 300), "png"), audio(SOUND.read_bytes())]}],
        "max_tokens": 5,
    }
    for _ in range(2):  # the second time part of it is found in the cache
        assert cluster.post(body).status_code == 200

    def exported() -> bool:
        text = httpx.get(f"http://127.0.0.1:{cluster.metrics}/metrics", timeout=5).text
        return all(f"ray_{name}" in text for name in METRICS)

    wait_for(exported, 60, "metrics")


def test_health_names_the_stages(cluster: Cluster) -> None:
    health = httpx.get(f"{cluster.url}/health").json()
    assert health["ready"] is True
    assert set(health["stages"]) == set(STAGES)


def test_documentation(cluster: Cluster) -> None:
    assert "swagger" in httpx.get(f"{cluster.url}/docs").text.lower()
    assert "/v1/chat/completions" in httpx.get(f"{cluster.url}/openapi.json").json()["paths"]
