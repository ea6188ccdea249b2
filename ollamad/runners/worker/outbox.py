"""Messages to the daemon, from any thread, without waiting.

The engine's thread writes a step's messages to the socket itself: handing them to the thread that
does I/O would cost two switches between threads a step, and that thread would compete with the next
step for a core. Only what the socket does not take at once is left to it.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterable

import msgspec
import trio

from ollamad.runners.framing import encode_frame
from ollamad.runners.protocol import FromRunner


class Outbox:
    """Sends whole frames in order. Made, and `flush`ed, in Trio's thread."""

    def __init__(self, end: socket.socket) -> None:
        """Send on *end*, which must not block; someone else may read from it."""
        self._socket = end
        self._encode = msgspec.msgpack.Encoder().encode
        self._lock = threading.Lock()
        # Bounded by what the open requests generate while the daemon does not read.
        self._unsent = bytearray()
        self._token = trio.lowlevel.current_trio_token()
        self._is_unsent = trio.Event()

    def send(self, messages: Iterable[FromRunner]) -> None:
        """Send *messages*, now or as soon as the socket takes them. Never waits.

        A daemon that is gone is noticed by whoever reads from it.
        """
        data = b"".join(encode_frame(self._encode(message)) for message in messages)
        with self._lock:
            if not self._unsent:
                data = data[self._sent(data) :]
            if not data:
                return
            self._unsent += data
        self._token.run_sync_soon(self._is_unsent.set)

    def _sent(self, data: bytes | bytearray) -> int:
        """Return how many bytes the socket took."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # Nobody will read it any more.

    async def flush(self) -> None:
        """Send what was left, for ever. To be run as a task."""
        while True:
            await self._is_unsent.wait()
            await trio.lowlevel.wait_writable(self._socket)
            with self._lock:
                del self._unsent[: self._sent(self._unsent)]
                if not self._unsent:
                    self._is_unsent = trio.Event()

    def drain(self, patience_s: float) -> None:
        """Wait, in a thread that may, until all is sent or patience ends."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while True:
            with self._lock:
                del self._unsent[: self._sent(self._unsent)]
                if not self._unsent:
                    return
            if not poll.poll(patience_s * 1000):
                return
