"""A small HTTP server on loopback that speaks the wire shapes of the daemon, as told by a test."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon is to answer."""

    status: int = 200
    body: bytes = b""
    lines: tuple[bytes, ...] | None = None
    """Sent as chunks, one a line, instead of the body."""
    is_cut: bool = False
    """Whether the connection ends in the middle of the chunks."""


def ok(value: object) -> Answer:
    return Answer(body=json.dumps(value).encode())


def refused(status: int, message: str) -> Answer:
    return Answer(status=status, body=json.dumps({"error": message}).encode())


def stream(*objects: object, is_cut: bool = False) -> Answer:
    return Answer(lines=tuple(json.dumps(each).encode() + b"\n" for each in objects), is_cut=is_cut)


class FakeDaemon:
    """Answers by (method, path); what is not told is 404."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.answers: dict[tuple[str, str], Answer | Callable[[Request], Answer]] = {
            ("HEAD", "/"): Answer()
        }

    def on(self, method: str, path: str, answer: Answer | Callable[[Request], Answer]) -> None:
        self.answers[method, path] = answer

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        found = self.answers.get((request.method, request.path))
        if found is None:
            return refused(404, f"no answer for {request.method} {request.path}")
        return found if isinstance(found, Answer) else found(request)

    def sent(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]


@contextmanager
def running_daemon() -> Iterator[FakeDaemon]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Keep stderr for the program under test."""

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(
                self.command, self.path, self.rfile.read(length), dict(self.headers.items())
            )
            answer = fake.answer(request)
            self.send_response(answer.status)
            if answer.lines is None:
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
                return
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in answer.lines:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if answer.is_cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_HEAD = do_POST = do_DELETE = _any  # noqa: N815 - http.server's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeDaemon(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
