"""Typed messages over any Trio byte stream. After a broken frame the channel is dead for good."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Generic, TypeVar

import msgspec
import trio

from ollamad.errors import ProtocolBroken
from ollamad.runners.framing import FrameDecoder, encode_frame

RECEIVE_BYTES: Final = 256 << 10

Incoming = TypeVar("Incoming")
Outgoing = TypeVar("Outgoing", bound=msgspec.Struct)


class ChannelClosed(Exception):
    """The other side is gone, or the stream broke between two frames."""


class Channel(Generic[Incoming, Outgoing]):
    """Sends one union of messages and receives another.

    One task may receive; any task may send, whole frames one after another.
    """

    def __init__(self, stream: trio.abc.Stream, incoming: Any) -> None:
        # `Any`: a union of types is a value that no annotation of Python's names before 3.14.
        self._stream = stream
        self._decoder = FrameDecoder()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode: Any = msgspec.msgpack.Decoder(incoming).decode
        self._received: deque[bytes] = deque()
        self._sending = trio.Lock()
        self._dead: Exception | None = None

    async def send(self, message: Outgoing) -> None:
        """Send one message whole. Raises ChannelClosed, or ProtocolBroken for what has no frame.

        Cancellation in the middle of a frame kills the channel: half a frame cannot be taken back.
        A message that has no frame was not sent at all, and the channel lives on.
        """
        frame = encode_frame(self._encoded(message))
        async with self._sending:
            self._check()
            sent = False
            try:
                await self._stream.send_all(frame)
                sent = True
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise ChannelClosed("the other side is gone") from exc
            finally:
                if not sent:
                    self._dead = self._dead or ChannelClosed("a frame was left half-sent")

    async def receive(self) -> Incoming:
        """Return the next message. Raises ChannelClosed at the end, ProtocolBroken on nonsense."""
        while not self._received:
            self._check()
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise self._died(ChannelClosed("the other side is gone")) from exc
            if not data:
                whole = self._decoder.is_between_frames
                raise self._died(
                    ChannelClosed("the other side closed")
                    if whole
                    else ProtocolBroken("the other side closed in the middle of a frame")
                )
            try:
                self._received.extend(self._decoder.feed(data))
            except ProtocolBroken as exc:
                raise self._died(exc) from None
        try:
            message: Incoming = self._decode(self._received.popleft())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            self._received.clear()  # Nothing that follows nonsense is trusted.
            raise self._died(ProtocolBroken(f"not a message of this protocol: {exc}")) from exc
        return message

    async def aclose(self) -> None:
        """Close the stream."""
        self._dead = self._dead or ChannelClosed("closed here")
        await self._stream.aclose()

    def _encoded(self, message: Outgoing) -> bytes:
        try:
            return self._encode(message)
        except (UnicodeEncodeError, OverflowError) as exc:
            # Prompts hold what clients wrote: half a surrogate pair, a token id of thirty digits.
            raise ProtocolBroken(f"a message cannot be encoded: {exc}") from exc

    def _died(self, reason: Exception) -> Exception:
        self._dead = reason
        return reason

    def _check(self) -> None:
        if self._dead is not None:
            raise ChannelClosed(str(self._dead)) from self._dead
