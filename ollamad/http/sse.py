"""Server-sent events, as OpenAI's and Anthropic's clients read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SSE_TYPE: Final = "text/event-stream"
SSE_HEADERS: Final = {"Cache-Control": "no-cache"}
"""Nothing between us and the client may keep an answer for later."""


def event(data: bytes, name: str = "") -> bytes:
    """Return one event. *data* is JSON, which has no line breaks of its own."""
    if name:
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


class TextEvents:
    """Makes events that differ in their text only.

    Encoding such an object anew for each token costs more than everything else about the event.
    """

    TEXT: Final = "\0text"
    """What the example has in its place. No name of a model has such a character."""

    def __init__(self, example: bytes, encode: Callable[[str], bytes]) -> None:
        """Take an event that *encode* has made, too."""
        self._before, _, self._after = example.partition(encode(self.TEXT))
        self._encode = encode

    def event(self, text: str) -> bytes:
        """Return the event with *text*."""
        return b"".join((self._before, self._encode(text), self._after))
