"""Conversations through the official client; the answers are those of Omni in one process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline import Omni

from .cluster import Cluster
from .media import PICTURE, SOUND, SPEECH, SQUARE, audio, image, text

GREEDY: dict[str, Any] = {
    "temperature": 0,
    "max_tokens": 16,
    "extra_body": {"repetition_penalty": 1.0, "ignore_eos": True},
}
OMNI_GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 16, "repetition_penalty": 1.0, "ignore_eos": True}


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "text": (
        [{"role": "user", "content": "你好！What is this?"}],
        [{"role": "user", "content": "你好！What is this?"}],
    ),
    "image": (
        user(image(PICTURE.read_bytes()), text("What is this?")),
        [{"role": "user", "content": {"text": "What is this?", "image": PICTURE}}],
    ),
    "audio": (user(audio(SOUND.read_bytes())), [{"role": "user", "content": {"audio": SOUND}}]),
    "all": (
        user(text("Compare."), audio(SOUND.read_bytes()), image(PICTURE.read_bytes())),
        [{"role": "user", "content": {"text": "Compare.", "image": PICTURE, "audio": SOUND}}],
    ),
    "turns": (
        [
            {"role": "system", "content": "Be brief."},
            *user(image(SQUARE.read_bytes()), text("And this?")),
            {"role": "assistant", "content": "A pad."},
            *user(audio(SPEECH.read_bytes(), "wav"), audio(SOUND.read_bytes()), text("Sure?")),
        ],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": {"text": "And this?", "image": SQUARE}},
            {"role": "assistant", "content": "A pad."},
            {"role": "user", "content": {"text": "Sure?", "audio": [SPEECH, SOUND]}},
        ],
    ),
}


@pytest.fixture(scope="module")
def expected(mini_omni: Omni) -> dict[str, str]:
    return {name: mini_omni.chat(messages, **OMNI_GREEDY) for name, (_, messages) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_one_process(cluster: Cluster, expected: dict[str, str], name: str) -> None:
    response = cluster.client().chat.completions.create(model=cluster.model, messages=CASES[name][0], **GREEDY)
    assert response.choices[0].message.content == expected[name]
    assert response.choices[0].finish_reason == "length"
    assert response.usage.completion_tokens == 16


@pytest.mark.parametrize("name", ["text", "all"])
def test_streamed(cluster: Cluster, expected: dict[str, str], name: str) -> None:
    chunks = list(
        cluster.client().chat.completions.create(
            model=cluster.model,
            messages=CASES[name][0],
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected[name]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 16
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_usage_counts_media(cluster: Cluster) -> None:
    usage = cluster.client().chat.completions.create(model=cluster.model, messages=CASES["all"][0], **GREEDY).usage
    assert usage.prompt_tokens_details.image_tokens == 576  # an overview and 2 x 4 slices
    assert usage.prompt_tokens_details.audio_tokens == 40
    assert usage.prompt_tokens > 616
    assert usage.total_tokens == usage.prompt_tokens + 16


def test_32_at_once(cluster: Cluster, expected: dict[str, str]) -> None:
    """Mixed, half of them streamed: nobody's answer changes in company."""
    names = [list(CASES)[i % len(CASES)] for i in range(32)]

    async def one(client: Any, i: int) -> str:
        request = client.chat.completions.create(
            model=cluster.model, messages=CASES[names[i]][0], stream=i % 2 == 0, **GREEDY
        )
        if i % 2:
            return str((await request).choices[0].message.content)
        return "".join([c.choices[0].delta.content or "" async for c in await request if c.choices])

    async def everybody() -> list[str]:
        async with cluster.async_client() as client:
            return await asyncio.gather(*(one(client, i) for i in range(32)))

    assert asyncio.run(everybody()) == [expected[name] for name in names]


def test_seed_replays(cluster: Cluster) -> None:
    def ask(seed: int) -> list[str]:
        response = cluster.client().chat.completions.create(
            model=cluster.model,
            messages=[{"role": "user", "content": "hi"}],
            temperature=2.0,
            seed=seed,
            n=3,
            max_tokens=40,
            extra_body={"top_k": 500, "min_p": 0.0001, "repetition_penalty": 1.1, "ignore_eos": True},
        )
        return [choice.message.content for choice in response.choices]

    first = ask(7)
    assert len(set(first)) == 3
    assert ask(7) == first
    assert ask(8) != first


def test_n_streamed(cluster: Cluster) -> None:
    texts = ["", "", ""]
    for chunk in cluster.client().chat.completions.create(
        model=cluster.model, messages=[{"role": "user", "content": "hi"}], n=3, stream=True, seed=1, max_tokens=8
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(texts)


def test_logprobs(cluster: Cluster) -> None:
    response = cluster.client().chat.completions.create(
        model=cluster.model,
        messages=[{"role": "user", "content": "hi"}],
        logprobs=True,
        top_logprobs=4,
        **GREEDY,
    )
    tokens = response.choices[0].logprobs.content
    assert len(tokens) == 16
    assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens)  # greedy takes the best
    assert all(len(token.top_logprobs) == 4 for token in tokens)
    assert (
        b"".join(bytes(token.bytes) for token in tokens)
        .decode(errors="replace")
        .startswith(response.choices[0].message.content[:4])
    )


def test_stop_and_lengths(cluster: Cluster, expected: dict[str, str]) -> None:
    case, answer = max(expected.items(), key=lambda item: len(item[1]))
    stop = answer[len(answer) // 2 :][:2]
    create = cluster.client().chat.completions.create
    response = create(model=cluster.model, messages=CASES[case][0], stop=[stop], **GREEDY)
    assert response.choices[0].message.content == answer[: answer.index(stop)]
    assert response.choices[0].finish_reason == "stop"
    response = create(
        model=cluster.model,
        messages=CASES["text"][0],
        max_completion_tokens=5,
        extra_body={"min_tokens": 5, "ignore_eos": True},
    )
    assert response.usage.completion_tokens == 5


def test_long_sound_is_split_not_cut(cluster: Cluster) -> None:
    from .media import tone_wav

    response = cluster.client().chat.completions.create(
        model=cluster.model, messages=user(audio(tone_wav(440, 65), "wav")), **GREEDY
    )
    # 30 s: 750 embeddings and 2 ends, twice; then 5 s.
    assert response.usage.prompt_tokens_details.audio_tokens == 2 * 752 + 127


def test_models(cluster: Cluster) -> None:
    assert [model.id for model in cluster.client().models.list()] == [cluster.model]
    assert cluster.client().models.retrieve(cluster.model).id == cluster.model
