"""Bytes to frames and back. Pure: no I/O, no knowledge of what a frame means.

A frame is a 4-byte big-endian length and that many bytes.
"""

from __future__ import annotations

from typing import Final

from ollamad.errors import ProtocolBroken

HEADER_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 64 << 20
"""A longer frame is a protocol error: a length gone wrong must not become an allocation."""


def encode_frame(payload: bytes) -> bytes:
    """Return *payload* with its length in front. Raises ProtocolBroken when it is too long."""
    if len(payload) > FRAME_BYTES_MAX:
        raise ProtocolBroken(f"frame of {len(payload)} bytes, at most {FRAME_BYTES_MAX} are sent")
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameDecoder:
    """Collects received bytes and gives back whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Return the frames that *data* completes. Raises ProtocolBroken on an absurd length."""
        self._buffer += data
        frames: list[bytes] = []
        position = 0
        while len(self._buffer) - position >= HEADER_BYTES:
            body = position + HEADER_BYTES
            length = int.from_bytes(self._buffer[position:body], "big")
            if length > FRAME_BYTES_MAX:
                raise ProtocolBroken(f"a frame of {length} bytes was announced")
            if len(self._buffer) < body + length:
                break
            frames.append(bytes(self._buffer[body : body + length]))
            position = body + length
        if position:
            del self._buffer[:position]
        return frames

    @property
    def is_between_frames(self) -> bool:
        """No part of a frame is waiting for its rest."""
        return not self._buffer
