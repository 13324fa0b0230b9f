"""Requests that are refused, and the routes beside completions."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from ray import exceptions as ray_errors

from .fakes import MODEL, STAGES, House, image, run


class TestRefusals:
    def test_unknown_model(self, house: House) -> None:
        response = run(house.post(model="gpt-4"))
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert MODEL in error["message"]

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nowhere", 404, "not_found"),
            ("GET", "/", 404, "not_found"),
            ("POST", "/v1/completions", 404, "not_found"),
            ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
            ("DELETE", "/v1/models", 405, "method_not_allowed"),
            ("GET", "/v1/models/gpt-4", 404, "model_not_found"),
            ("GET", "/v1/models/a/b", 404, "model_not_found"),
        ],
    )
    def test_routes(self, house: House, method: str, path: str, status: int, code: str) -> None:
        async def main() -> None:
            async with house.client() as client:
                answer = await client.request(method, path)
                assert answer.status_code == status
                error = answer.json()["error"]
                assert (error["type"], error["code"]) == ("invalid_request_error", code)
                if status == 405:
                    assert answer.headers["allow"]

        run(main())

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"tools": []}, "tools"),
            ({"temperature": "0.7"}, "temperature"),
            ({"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0].name"),
            ({"n": 9}, "n"),
        ],
    )
    def test_the_field_is_named(self, house: House, fields: dict[str, Any], param: str) -> None:
        response = run(house.post(**fields))
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert param in response.json()["error"]["message"]

    @pytest.mark.parametrize(
        ("content", "code"),
        [(b"", "missing"), (b"null", "invalid_value"), (b"{", "invalid_json"), (b"[]", "invalid_value")],
    )
    def test_what_is_no_object(self, house: House, content: bytes, code: str) -> None:
        async def main() -> None:
            async with house.client() as client:
                headers = {"content-type": "application/json"}
                answer = await client.post("/v1/chat/completions", content=content, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)

        run(main())

    def test_a_bad_picture_among_good_ones(self, house: House) -> None:
        response = run(house.post(content=[image(), image("!!")]))
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "invalid_media", "messages[0].content[1]")

    def test_too_many_media(self, house: House) -> None:
        house.configure(max_media=1)
        response = run(house.post(content=[image(), image()]))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_media")

    def test_too_much_text(self, house: House) -> None:
        house.configure(max_text_characters=5)
        response = run(house.post(content="123456"))
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")

    def test_not_ready(self, house: House) -> None:
        house.readiness.down = {"LanguageDecoder"}
        response = run(house.post())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert response.headers["retry-after"]


class TestOtherRoutes:
    async def get(self, house: House, path: str) -> httpx.Response:
        async with house.client() as client:
            return await client.get(path)

    def test_models(self, house: House) -> None:
        body = run(self.get(house, "/v1/models")).json()
        (model,) = body["data"]
        assert (body["object"], model["id"], model["object"]) == ("list", MODEL, "model")
        assert run(self.get(house, f"/v1/models/{MODEL}")).json() == model

    def test_health(self, house: House) -> None:
        response = run(self.get(house, "/health"))
        assert (response.status_code, response.json()["ready"]) == (200, True)
        assert sorted(response.json()["stages"]) == sorted(STAGES)

    def test_health_while_a_stage_is_down(self, house: House) -> None:
        house.readiness.down = {"AudioEncoder"}
        response = run(self.get(house, "/health"))
        assert (response.status_code, response.json()["ready"]) == (503, False)
        assert response.json()["stages"]["AudioEncoder"] == {"status": "UNHEALTHY", "running": 0, "ready": False}

    def test_health_while_the_controller_does_not_answer(self, house: House) -> None:
        def gone() -> Any:
            raise ray_errors.ActorUnavailableError("the controller restarts", None)

        house.readiness._ask = gone  # type: ignore[method-assign]

        async def main() -> int:
            async with house.client(raise_bugs=False) as client:
                return (await client.get("/health")).status_code

        assert run(main()) == 503

    def test_documentation(self, house: House) -> None:
        response = run(self.get(house, "/docs"))
        assert response.status_code == 200
        assert "/openapi.json" in response.text

    def test_description(self, house: House) -> None:
        schema = run(self.get(house, "/openapi.json")).json()
        responses = schema["paths"]["/v1/chat/completions"]["post"]["responses"]
        assert set(responses) == {"200", "400", "401", "404", "408", "413", "415", "429", "500", "503", "504"}
        for status, response in responses.items():
            if status != "200":
                ref = response["content"]["application/json"]["schema"]["$ref"]
                assert ref == "#/components/schemas/ErrorResponse"
        assert '"422"' not in json.dumps(schema)
        assert "ValidationError" not in json.dumps(schema)
        assert schema["components"]["schemas"]["ChatCompletionRequest"]["additionalProperties"] is False
