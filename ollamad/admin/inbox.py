"""`Inbox`: the calls that one peer sends, bounded in size, number and time."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import trio

from ollamad.errors import ProtocolBroken
from ollamad.varlink import MessageDecoder

RECEIVE_BYTES: Final = 64 << 10
MESSAGE_TIMEOUT_S: Final = 10.0
"""How long a message that has begun may take to be complete."""
IDLE_TIMEOUT_S: Final = 600.0
"""How long a connection may stay open without a call: there is not room for everybody's."""
CALLS_AHEAD_MAX: Final = 64
"""Calls that may have arrived while one is answered; then nobody reads on."""
AHEAD_BYTES_MAX: Final = 256 << 10
"""What they may amount to: they wait in memory."""


class Inbox:
    """Reads messages from a stream. One task at a time may read."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._decoder = MessageDecoder()
        self._messages: deque[bytes] = deque()
        self._due_at = math.inf
        """When the message that has begun must be complete."""
        self._is_over = False

    @property
    def bytes_ahead(self) -> int:
        """How much has arrived and was not given out: whole messages."""
        return sum(map(len, self._messages))

    async def receive(self) -> bytes | None:
        """Return the next message; `None` when the peer has hung up or says nothing for too long.

        Raises ProtocolBroken for a message that is too long, or that breaks off.
        """
        while not self._messages and not self._is_over:
            idle_until = trio.current_time() + IDLE_TIMEOUT_S
            with trio.move_on_at(min(self._due_at, idle_until)) as patience:
                await self._read()
            if patience.cancelled_caught:
                if math.isinf(self._due_at):
                    return None
                raise ProtocolBroken(f"a message was not complete within {MESSAGE_TIMEOUT_S:g} s")
        if self._messages:
            return self._messages.popleft()
        if not self._decoder.is_between_messages:
            raise ProtocolBroken("the peer hung up in the middle of a message")
        return None

    async def hung_up(self) -> None:
        """Return when the peer has hung up. What it sends meanwhile waits its turn.

        Raises ProtocolBroken for a message that is too long.
        """
        while not self._is_over:
            if len(self._messages) >= CALLS_AHEAD_MAX or self.bytes_ahead >= AHEAD_BYTES_MAX:
                await trio.sleep_forever()
            await self._read()

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self._is_over = not data
        arrived = self._decoder.feed(data)
        self._messages.extend(arrived)
        if self._decoder.is_between_messages:
            self._due_at = math.inf
        elif arrived or math.isinf(self._due_at):
            self._due_at = trio.current_time() + MESSAGE_TIMEOUT_S
