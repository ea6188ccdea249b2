"""Varlink's own messages: NUL-terminated JSON, calls and replies, and the standard errors. Pure.

Both ends use this: `ollamad.admin` and `ollamactl.admin`. What is asked and answered over it is
for `ollamad.adminwire`. The protocol's upgrade to another one is not spoken.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ollamad.errors import ProtocolBroken

MESSAGE_BYTES_MAX: Final = 1 << 20
"""A longer message, either way, is an error: memory for it must not be the sender's to choose."""
END: Final = b"\0"
"""What ends each message."""

SERVICE: Final = "org.varlink.service"
"""The interface that every Varlink service has."""
INTERFACE_NOT_FOUND: Final = f"{SERVICE}.InterfaceNotFound"
METHOD_NOT_FOUND: Final = f"{SERVICE}.MethodNotFound"
METHOD_NOT_IMPLEMENTED: Final = f"{SERVICE}.MethodNotImplemented"
INVALID_PARAMETER: Final = f"{SERVICE}.InvalidParameter"
EXPECTED_MORE: Final = f"{SERVICE}.ExpectedMore"

NO_PARAMETERS: Final = msgspec.Raw(b"{}")

T = TypeVar("T")


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a method."""

    method: str
    """With its interface in front: `io.ollamad.Admin.Status`."""
    parameters: msgspec.Raw = NO_PARAMETERS
    oneway: bool | None = False
    """No reply is wanted, not even an error."""
    more: bool | None = False
    """Several replies are welcome."""
    upgrade: bool | None = False


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reply to a call."""

    parameters: msgspec.Raw = NO_PARAMETERS
    continues: bool | None = False
    """Another reply will follow."""
    error: str | None = None
    """The error's name with its interface in front; `None` for success."""


_encode: Final = msgspec.json.Encoder().encode


def encode(message: Call | Reply) -> bytes:
    """Return *message* with its end. Raises ProtocolBroken when it is too long to be sent."""
    payload = _encode(message)
    if len(payload) > MESSAGE_BYTES_MAX:
        raise ProtocolBroken(
            f"a message of {len(payload)} bytes, at most {MESSAGE_BYTES_MAX} are sent"
        )
    return payload + END


def raw(parameters: object) -> msgspec.Raw:
    """Return *parameters* as they stand in a message."""
    return msgspec.Raw(_encode(parameters))


def decode_call(message: bytes) -> Call:
    """Return the call that *message* is. Raises ProtocolBroken."""
    return _decoded(message, Call)


def decode_reply(message: bytes) -> Reply:
    """Return the reply that *message* is. Raises ProtocolBroken."""
    return _decoded(message, Reply)


def _decoded(message: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(message, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolBroken(f"not a Varlink message: {exc}") from exc


class MessageDecoder:
    """Collects received bytes and gives back whole messages, without their ends."""

    def __init__(self, *, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Return the messages that *data* completes. Raises ProtocolBroken on one too long."""
        searched = len(self._buffer)
        self._buffer += data
        messages: list[bytes] = []
        start = 0
        while (end := self._buffer.find(END, max(start, searched))) >= 0:
            self._check(end - start)
            messages.append(bytes(self._buffer[start:end]))
            start = end + 1
        if start:
            del self._buffer[:start]
        self._check(len(self._buffer))
        return messages

    @property
    def is_between_messages(self) -> bool:
        """No part of a message is waiting for its rest."""
        return not self._buffer

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._bytes_max:
            raise ProtocolBroken(f"a message of more than {self._bytes_max} bytes was sent")
