"""Server-sent events, as OpenAI's and Anthropic's clients read them."""

from __future__ import annotations

from typing import Final

SSE_TYPE: Final = "text/event-stream"
SSE_HEADERS: Final = {"Cache-Control": "no-cache"}
"""Nothing between us and the client may keep an answer for later."""


def event(data: bytes, name: str = "") -> bytes:
    """Return one event. *data* is JSON, which has no line breaks of its own."""
    if name:
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"
