"""Read on for a while when an answer is ready before its request has been read to the end.

Closing a connection with unread data resets it, and most clients then never see the answer: they
are still writing. And Hypercorn, whose queue to the application holds a few messages, waits for
room in it before it closes: an application that has stopped reading would wait with it for ever.
"""

from __future__ import annotations

from typing import Final

import trio

from ollamad.http.scope import AsgiApp, Message, Receive, Scope, Send

LINGER_S: Final = 10.0
"""How long the rest of a body is read and thrown away before its client is cut off."""
LINGER_BYTES_MAX: Final = 256 << 20


class Linger:
    """An ASGI wrapper; the outermost one."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; before its last write, read the request to its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _RestOfBody(receive)

        async def send_after_reading(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if not is_last or body.is_whole:
                await send(message)
                return
            with trio.CancelScope(shield=True):
                with trio.move_on_after(LINGER_S):
                    await body.discard(LINGER_BYTES_MAX)
                async with trio.open_nursery() as nursery:
                    # Whoever is cut off may still fill the queue that the last write waits for.
                    nursery.start_soon(body.discard, float("inf"))
                    await send(message)
                    nursery.cancel_scope.cancel()

        await self._app(scope, body.receive, send_after_reading)


class _RestOfBody:
    """Knows whether a request has been read to its end, and lets one task read at a time.

    The application may still be reading when its answer is ready: a second reader that waits
    beside it would wait for a piece that the application gets.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._turn = trio.Lock()
        self.is_whole = False

    async def receive(self) -> Message:
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            return await self._received()
        finally:
            self._turn.release()

    async def discard(self, n_bytes_max: float) -> None:
        """Read to the end, or until more than *n_bytes_max* have come."""
        n_bytes = 0
        while not self.is_whole and n_bytes <= n_bytes_max:
            async with self._turn:
                if not self.is_whole:
                    n_bytes += len((await self._received()).get("body", b""))

    async def _received(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_whole = True
        return message
