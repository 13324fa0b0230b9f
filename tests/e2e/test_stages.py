"""How requests use the stages: which they touch, what they share, what happens when one is lost."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import ray

from tests.golden import DATA

from .cluster import Cluster, wait_for
from .media import audio, image, noise_png, text, tone_wav


def ask(cluster: Cluster, *content: Any, **fields: Any) -> httpx.Response:
    body = {"model": cluster.model, "messages": [{"role": "user", "content": list(content)}], "max_tokens": 4}
    return cluster.post({**body, "temperature": 0, **fields})


def fresh() -> int:
    """A seed for what no cache of this cluster has seen, however often a test runs on it."""
    return time.time_ns()


def encodings(cluster: Cluster) -> tuple[float, float]:
    return cluster.stats("VisionEncoder")["started"], cluster.stats("AudioEncoder")["started"]


def test_text_touches_no_encoder(cluster: Cluster) -> None:
    before = encodings(cluster)
    assert ask(cluster, text("hi")).status_code == 200
    assert encodings(cluster) == before


def test_a_medium_that_comes_back_is_encoded_once(cluster: Cluster) -> None:
    picture, sound = image(noise_png(fresh(), 500, 400), "png"), audio(tone_wav(400 + fresh() % 1000, 2), "wav")
    before = encodings(cluster)
    first = ask(cluster, picture, sound, text("What?")).json()
    turns = [
        {"role": "user", "content": [picture, sound, text("What?")]},
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": [picture, text("Again?")]},
    ]
    second = cluster.post({"model": cluster.model, "messages": turns, "max_tokens": 4})
    assert second.status_code == 200
    assert encodings(cluster) == (before[0] + 1, before[1] + 1)
    details = second.json()["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] == 2 * first["usage"]["prompt_tokens_details"]["image_tokens"]


def test_simultaneous_requests_share_one_encoding(cluster: Cluster) -> None:
    part = image(noise_png(fresh(), 1300, 1200), "png")
    before = encodings(cluster)[0]

    async def six() -> list[str]:
        async with httpx.AsyncClient(timeout=60) as client:
            body = {"model": cluster.model, "messages": [{"role": "user", "content": [part]}], "max_tokens": 4,
                    "temperature": 0}  # fmt: skip
            replies = await asyncio.gather(
                *(client.post(f"{cluster.url}/v1/chat/completions", json=body) for _ in range(6))
            )
            return [r.json()["choices"][0]["message"]["content"] for r in replies]

    assert len(set(asyncio.run(six()))) == 1
    assert encodings(cluster)[0] == before + 1


def test_encoders_batch_across_requests(cluster: Cluster) -> None:
    """Eight pictures of one slice, one a request, need fewer batches than there are requests."""
    before = cluster.stats("VisionEncoder")
    blocker = image(noise_png(fresh(), 1300, 1300), "png")  # keeps the encoder busy while the others arrive
    small = [image(noise_png(fresh(), 200, 200), "png") for _ in range(8)]

    async def nine() -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"{cluster.url}/v1/chat/completions"
            bodies = [
                {"model": cluster.model, "messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
                for part in [blocker, *small]
            ]
            replies = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
            assert [r.status_code for r in replies] == [200] * 9

    asyncio.run(nine())
    after = cluster.stats("VisionEncoder")
    assert after["units"] - before["units"] == 18
    assert after["batches"] - before["batches"] < 9


def test_user_config_reaches_running_replicas(cluster: Cluster) -> None:
    """Keys, deadlines and queues change without a restart; then they change back."""
    assert ask(cluster, text("hi")).status_code == 200
    before = cluster.stats("LanguageDecoder")["started"]
    assert before > 0
    config = cluster.configured(
        {
            "Ingress": {
                "user_config": {
                    "api_keys": ["k1", "k2"],
                    "request_seconds": 2.0,
                    "fetch": {"enabled": True, "allow_private": True},
                }
            },
            "LanguageDecoder": {"user_config": {"max_running": 1, "max_waiting": 1}},
        }
    )
    try:
        cluster.deploy(config)
        assert cluster.stats("LanguageDecoder")["started"] == before  # the same process
        _keys(cluster)
        _deadline(cluster)
        _full_queue(cluster)
        _fetching(cluster)
    finally:
        cluster.deploy()
    assert ask(cluster, text("hi")).status_code == 200


def _keys(cluster: Cluster) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic k1"}):
        response = cluster.post({"model": cluster.model, "messages": []}, headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(f"{cluster.url}/v1/models").status_code == 401
    assert [m.id for m in cluster.client("k2").models.list()] == [cluster.model]


def _deadline(cluster: Cluster) -> None:
    body = {"model": cluster.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3000,
            "ignore_eos": True}  # fmt: skip
    key = {"Authorization": "Bearer k1"}
    response = cluster.post(body, key)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    response = cluster.post({**body, "stream": True}, key)  # its first token was in time
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert response.status_code == 200
    assert json.loads(events[0])["choices"][0]["delta"]["role"] == "assistant"
    assert json.loads(events[-1])["error"]["code"] == "timeout"
    wait_for(cluster.idle, 5, "idle stages")


def _full_queue(cluster: Cluster) -> None:
    """One runs, one waits, the others are told to come back."""
    body = {"model": cluster.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16,
            "ignore_eos": True}  # fmt: skip

    async def crowd() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60, headers={"Authorization": "Bearer k1"}) as client:
            url = f"{cluster.url}/v1/chat/completions"
            return await asyncio.gather(*(client.post(url, json=body) for _ in range(8)))

    replies = asyncio.run(crowd())
    busy = [r for r in replies if r.status_code == 429]
    assert busy
    assert all(r.headers["retry-after"] == "1" and r.json()["error"]["type"] == "rate_limit_error" for r in busy)
    assert {r.status_code for r in replies} <= {200, 429}
    assert 200 in {r.status_code for r in replies}


def _fetching(cluster: Cluster) -> None:
    """A picture by URL, from a server on this machine (which allow_private lets in)."""
    handler = functools.partial(QuietHandler, directory=DATA)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        statuses = {}
        for name in ("sample_image.jpg", "missing.jpg"):
            part = {"type": "image_url", "image_url": {"url": f"{url}/{name}"}}
            body = {"model": cluster.model, "messages": [{"role": "user", "content": [part]}], "max_tokens": 2}
            statuses[name] = cluster.post(body, {"Authorization": "Bearer k1"})
        server.shutdown()
    assert statuses["sample_image.jpg"].json()["usage"]["prompt_tokens_details"]["image_tokens"] == 576
    assert statuses["missing.jpg"].status_code == 400
    assert "404" in statuses["missing.jpg"].json()["error"]["message"]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


def test_a_burst_of_200(cluster: Cluster) -> None:
    """More than the queue holds: everybody gets an answer or is told to come back; nobody is dropped."""
    body = {"model": cluster.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8,
            "ignore_eos": True}  # fmt: skip

    async def crowd() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=90, limits=limits) as client:
            url = f"{cluster.url}/v1/chat/completions"
            return await asyncio.gather(*(client.post(url, json={**body, "seed": i}) for i in range(200)))

    replies = asyncio.run(crowd())
    statuses = [r.status_code for r in replies]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 80  # 16 run and 64 wait
    assert all(r.json()["usage"]["completion_tokens"] == 8 for r in replies if r.status_code == 200)
    assert all(r.headers["retry-after"] for r in replies if r.status_code == 429)


def _kill_replica(cluster: Cluster, stage: str) -> None:
    from ray.util.state import list_actors

    actors = list_actors(filters=[("state", "=", "ALIVE")], limit=1000)
    (pid,) = [a.pid for a in actors if f":{stage}" in a.class_name]
    os.kill(pid, signal.SIGKILL)


def test_a_decoder_that_dies(cluster: Cluster) -> None:
    """Mid-stream its client is told in the stream; then 503 or an answer, never a hang."""
    body = {"model": cluster.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3000,
            "ignore_eos": True, "stream": True}  # fmt: skip
    with httpx.stream("POST", f"{cluster.url}/v1/chat/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        _kill_replica(cluster, "LanguageDecoder")
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert events[-1]["error"]["code"] == "stage_died"
    statuses = set()
    end = time.monotonic() + 60
    while time.monotonic() < end and 200 not in statuses:
        response = ask(cluster, text("hi"))
        statuses.add(response.status_code)
        time.sleep(0.2)
    assert 200 in statuses
    assert statuses <= {200, 503}
    wait_for(cluster.ready, 30, "readiness")


def test_lost_embeds_are_encoded_again(cluster: Cluster) -> None:
    """The node that holds a picture's embeds goes away; the client notices nothing."""
    node = cluster.add_node('--num-cpus=1 --resources={"vision":1}')
    wait_for(lambda: ray.cluster_resources().get("vision"), 60, "the second node")
    # The decoder is there, too: it fetches the embeds, and a copy elsewhere would save them.
    there = {"ray_actor_options": {"num_cpus": 0.4, "resources": {"vision": 0.1}}}
    cluster.deploy(cluster.configured({"VisionEncoder": there, "LanguageDecoder": there}))
    picture = image(noise_png(4, 1000, 800), "png")
    answer = ask(cluster, picture, text("What?")).json()
    kept = cluster.stats("Ingress")["media_cached"]
    node.kill()
    cluster.nodes.remove(node)
    cluster.deploy()
    assert cluster.stats("Ingress")["media_cached"] == kept
    begin = cluster.stats("VisionEncoder")["started"]
    assert ask(cluster, picture, text("What?")).json()["choices"] == answer["choices"]
    assert cluster.stats("VisionEncoder")["started"] == begin + 1
    assert "embeds_lost" in cluster.replica_logs()["Ingress"]
