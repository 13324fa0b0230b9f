"""A server that speaks as much of OpenAI's API as the harness needs, in a thread of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Body = dict[str, Any]
Reply = str | Body | tuple[int, dict[str, str]]
"""The answer's text, what replaces parts of the completion, or a status and headers."""


class FakeServer:
    """Answers what `reply` says; keeps the requests' bodies and the most that ran at once."""

    def __init__(self) -> None:
        self.reply: Callable[[Body], Reply] = lambda body: "yes"
        self.bodies: list[Body] = []
        self.keys: set[str | None] = set()
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {}, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reply = server._answer(body, self.headers["authorization"])
                if isinstance(reply, tuple):
                    return self._send(*reply, {"error": {"message": "no"}})
                text, changes = (reply, {}) if isinstance(reply, str) else ("yes", reply)
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "message": message, "finish_reason": "length" if text == "cut" else "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": len(text), "total_tokens": 1 + len(text)}
                body = {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}
                self._send(200, {}, body | changes)

            def _send(self, status: int, headers: dict[str, str], content: Body) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Keeps the tests' output clean."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def _answer(self, body: Body, key: str | None) -> Reply:
        with self._lock:
            self.bodies.append(body)
            self.keys.add(key)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            return self.reply(body)
        finally:
            with self._lock:
                self._running -= 1


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    thread = threading.Thread(target=fake.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()
    thread.join()
