"""The smallest ASGI server: one request in, the messages of its answer out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from ollamad.http.scope import AsgiApp, Message, Receive, Scope, Send

DISCONNECT: Message = {"type": "http.disconnect"}


def a_scope(
    *, method: str = "GET", path: str = "/", kind: str = "http", **headers: str
) -> dict[str, Any]:
    """Return a request's scope. Headers' names are written with underscores."""
    return {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    }


def body_of(*pieces: bytes) -> list[Message]:
    """Return the messages that bring a body in *pieces*."""
    last = len(pieces) - 1
    return [
        {"type": "http.request", "body": piece, "more_body": n < last}
        for n, piece in enumerate(pieces)
    ]


class Exchange:
    """One request. After its messages the client stays until it is told to leave."""

    def __init__(self, scope: Scope, messages: Sequence[Message] = ()) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self.n_received = 0
        self._messages = list(messages)
        self._left = trio.Event()

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self.n_received < len(self._messages):
            self.n_received += 1
            return self._messages[self.n_received - 1]
        await self._left.wait()
        return DISCONNECT

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers; a name that comes twice has both values, joined."""
        joined: dict[str, str] = {}
        for name, value in self.sent[0]["headers"]:
            key, text = name.decode(), value.decode("latin-1")
            joined[key] = f"{joined[key]}, {text}" if key in joined else text
        return joined

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def ask(app: AsgiApp, scope: Scope, messages: Sequence[Message] = ()) -> Exchange:
    """Return the exchange after *app* has ended."""
    exchange = Exchange(scope, messages)
    await app(exchange.scope, exchange.receive, exchange.send)
    return exchange


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 without reading the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-mine", b"1")]})
    await send({"type": "http.response.body", "body": b"fine"})


def reading(read: list[bytes]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an application that reads the whole body into *read*, then answers 200.

    When the client leaves it gives up without an answer.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            read.append(message["body"])
            if not message["more_body"]:
                break
        await ok(scope, receive, send)

    return app
