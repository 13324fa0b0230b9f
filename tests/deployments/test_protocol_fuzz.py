"""Whatever is sent, the answer is one or a named error, and nothing is left behind."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.protocol import ChatCompletionRequest

from .fakes import MODEL, House, audio, image, run
from .test_protocol import TEXT

FIELDS = sorted(ChatCompletionRequest.model_fields)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
PARTS = st.sampled_from([TEXT, image(), audio(), {"type": "image_url"}, {"type": "input_audio", "input_audio": 5}])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "x"]), "content": JSON | st.lists(PARTS, max_size=3)}
    ),
    max_size=3,
)
BODIES = st.builds(
    lambda messages, fields: {"model": MODEL, "messages": messages, **fields},
    MESSAGES,
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), JSON, max_size=3),
)


@settings(max_examples=150)
@given(body=JSON | BODIES)
def test_arbitrary_json_is_an_answer_or_a_named_error(house: House, body: Any) -> None:
    async def main() -> None:
        async with house.client() as client:  # a bug would come through as an exception
            content = json.dumps(body).encode()
            response = await client.post(
                "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
            )
        assert response.status_code in (200, 400, 404, 413), response.text
        if response.status_code != 200:
            assert response.json()["error"]["message"]

    run(main())
    assert house.idle()


@settings(max_examples=60)
@given(content=st.binary(max_size=40) | st.sampled_from([b"", b"null", b"[" * 5000, b"1" * 5000, b'"\\ud800"', b"{}"]))
def test_arbitrary_bytes_are_a_400(house: House, content: bytes) -> None:
    async def main() -> None:
        async with house.client() as client:
            headers = {"content-type": "application/json"}
            response = await client.post("/v1/chat/completions", content=content, headers=headers)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["type"] == "invalid_request_error"

    run(main())
