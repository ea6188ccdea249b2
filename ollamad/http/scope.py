"""ASGI wrappers around the whole application: the request scope and the limit of bodies."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol

import trio

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application. The dictionaries are ASGI's own."""

_LENGTH_DIGITS_MAX: Final = 18
"""Digits of an announced length that are read; more are too much for every limit anyway."""

STACK_KEY: Final = "ollamad.scope"
"""Where a request's exit stack lies in its ASGI scope."""

PIECES_KEY: Final = "ollamad.pieces"
"""Where a server's `PieceWriter` lies among the extensions of a request's ASGI scope."""


class PieceWriter(Protocol):
    """What a server may offer beside `send`: to write a piece of a body without waiting.

    For pieces between two calls of `send`, after the first piece has been sent. Who writes need
    not be the task that answers the request.
    """

    @property
    def is_free(self) -> bool:
        """Nothing waits to be written, and a piece may come now."""
        ...

    def write(self, piece: bytes) -> None:
        """Take *piece*, when it is free. Never waits, and fails only as `send` will tell."""
        ...


class RequestScope:
    """Give every request an exit stack that outlives its handler, and let the last write finish.

    A lease must be released when the handler fails, when the client leaves before or during the
    stream, and when the body ends. Only the ASGI call itself spans all of these.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application inside the stack."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_whole(message: Message) -> None:
            # Quart cancels the request when the server reports the connection closed, and the
            # server reports that while it is still closing: without the shield,
            # "Connection: close" leaves the socket open.
            if message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            with trio.CancelScope(shield=True):
                await send(message)

        with contextlib.ExitStack() as stack:
            scope[STACK_KEY] = stack
            await self._app(scope, receive, send_whole)


class BodyLimit:
    """Refuse a body that is larger than its route takes, without reading it to its end.

    *limits* are bytes by path; other paths take *default_bytes*. `None` is no limit, for routes
    that stream their body to disk. *refusal* is the answer's body for a path's limit.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        limits: Mapping[str, int],
        unlimited_prefix: str,
        default_bytes: int,
        refusal: Callable[[str, int], bytes],
    ) -> None:
        self._app = app
        self._limits = limits
        self._unlimited_prefix = unlimited_prefix
        self._default_bytes = default_bytes
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as long as its body keeps to the limit."""
        if scope["type"] != "http" or scope["path"].startswith(self._unlimited_prefix):
            await self._app(scope, receive, send)
            return
        limit_bytes = self._limits.get(scope["path"], self._default_bytes)
        if _announced_bytes(scope) > limit_bytes:
            await self._refuse(scope, send, limit_bytes)
            return
        received_bytes = 0
        has_answered = False

        async def receive_counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > limit_bytes:
                # For the application the client has left; it is answered below.
                return {"type": "http.disconnect"}
            return message

        async def send_noted(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        await self._app(scope, receive_counted, send_noted)
        if received_bytes > limit_bytes and not has_answered:
            await self._refuse(scope, send, limit_bytes)

    async def _refuse(self, scope: Scope, send: Send, limit_bytes: int) -> None:
        body = self._refusal(scope["path"], limit_bytes)
        headers = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            # The rest of the body is not going to be read, so nothing can follow it.
            (b"connection", b"close"),
        ]
        with trio.CancelScope(shield=True):
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value.lstrip(b"0")[:_LENGTH_DIGITS_MAX] or b"0")
    return 0
