"""Events of a stream that differ in their text only, and the end of streams."""

from __future__ import annotations

from typing import Final

import msgspec

from ollamad.errors import OllamadError
from ollamad.http.errors import status_of
from ollamad.http.openai.errors import openai_error
from ollamad.http.sse import event

DONE: Final = event(b"[DONE]")
"""After this nothing comes. An answer that failed ends without it."""

_encode = msgspec.json.Encoder().encode


class ChunkPattern:
    """Makes events that differ in their text only.

    Encoding such an object anew for each token costs more than everything else about the event.
    """

    TEXT: Final = "\0text"
    """What *example* has in its place. No name of a model has such a character."""

    def __init__(self, example: msgspec.Struct) -> None:
        before, _, after = event(_encode(example)).partition(_encode(self.TEXT))
        self._before, self._after = before, after

    def chunk(self, text: str) -> bytes:
        """Return the event with *text*."""
        return b"".join((self._before, _encode(text), self._after))


def chunk(whole: msgspec.Struct) -> bytes:
    """Return one event."""
    return event(_encode(whole))


def failure(error: OllamadError) -> bytes:
    """Return the event that a stream ends with when its answer cannot go on."""
    return event(openai_error(status_of(error), error.message, error))
