"""HTTP/1.1 as the load needs it: requests as bytes, and responses as they arrive in pieces.

Pure, and smaller than any library's, on purpose: the client shares the processor with what it
measures. It reads what our two servers send (a length, chunks, or until the end) and nothing more.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Final

HEAD_BYTES_MAX: Final = 64 << 10
CHUNK_LINE_BYTES_MAX: Final = 1024
END_OF_HEAD: Final = b"\r\n\r\n"


class BadResponse(Exception):
    """The bytes are no response that we read."""


def request_bytes(method: str, path: str, body: object = None) -> bytes:
    """Return a whole request, with *body* as JSON unless it is None."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


class _Framing(enum.Enum):
    LENGTH = enum.auto()
    CHUNKS = enum.auto()
    UNTIL_CLOSE = enum.auto()


class ResponseReader:
    """One response: `feed` it bytes as they come, take the body's bytes from what it returns."""

    def __init__(self) -> None:
        self.status = 0
        self.is_done = False
        self.closes = False
        """Whether the server takes no further request on this connection."""

        self._rest = bytearray()
        self._framing: _Framing | None = None
        self._left = 0
        """Bytes of the body, or of the chunk with its line end, that are still to come."""

    def feed(self, data: bytes) -> bytes:
        """Take *data* and return what it adds to the body. Raises BadResponse."""
        self._rest += data
        if self._framing is None and not self._read_head():
            return b""
        match self._framing:
            case _Framing.CHUNKS:
                return self._read_chunks()
            case _Framing.LENGTH:
                body = bytes(self._rest[: self._left])
                self._left -= len(body)
                self.is_done = self._left == 0
            case _:
                body = bytes(self._rest)
        self._rest.clear()
        return body

    def closed(self) -> None:
        """Take note that the server closed. Raises BadResponse if something is missing."""
        if self._framing is not _Framing.UNTIL_CLOSE and not self.is_done:
            raise BadResponse("the server closed in the middle of an answer")
        self.is_done = True

    def _read_head(self) -> bool:
        end = self._rest.find(END_OF_HEAD)
        if end < 0:
            if len(self._rest) > HEAD_BYTES_MAX:
                raise BadResponse("the head of an answer is too long")
            return False
        first, *lines = bytes(self._rest[:end]).split(b"\r\n")
        del self._rest[: end + len(END_OF_HEAD)]
        words = first.split(b" ")
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
            raise BadResponse(f"no status line: {first[:80]!r}")
        self.status = int(words[1])
        headers = {
            name.lower(): value for name, _, value in (line.partition(b":") for line in lines)
        }
        self.closes = headers.get(b"connection", b"").strip().lower() == b"close"
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            self._framing = _Framing.CHUNKS
        elif (length := headers.get(b"content-length", b"").strip()).isdigit():
            self._framing, self._left = _Framing.LENGTH, int(length)
            self.is_done = self._left == 0
        else:
            self._framing = _Framing.UNTIL_CLOSE
        return True

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while not self.is_done:
            if self._left:
                piece = bytes(self._rest[: self._left])
                del self._rest[: len(piece)]
                # The last two bytes of what is left are the chunk's line end, and no body.
                body += piece[: max(0, self._left - 2)]
                self._left -= len(piece)
                if self._left:
                    break
                continue
            end = self._rest.find(b"\r\n")
            if end < 0:
                if len(self._rest) > CHUNK_LINE_BYTES_MAX:
                    raise BadResponse("the size line of a chunk is too long")
                break
            size = _chunk_size(bytes(self._rest[:end]))
            if size == 0:
                if len(self._rest) < end + 4:  # The empty line after the last chunk.
                    break
                self.is_done = True
                self._rest.clear()
                break
            del self._rest[: end + 2]
            self._left = size + 2
        return bytes(body)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as exc:
        raise BadResponse(f"no chunk size: {line[:80]!r}") from exc


def event_of(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line of NDJSON or of server-sent events, or None if it has none.

    Any: what the fields mean is the dialect's business.
    """
    text = line.removeprefix(b"data:").strip()
    if not text.startswith(b"{"):
        return None
    value = json.loads(text)
    return value if isinstance(value, dict) else None
