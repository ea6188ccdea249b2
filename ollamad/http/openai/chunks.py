"""Events of a stream that differ in their text only, and the end of streams."""

from __future__ import annotations

from typing import Final

import msgspec

from ollamad.errors import OllamadError
from ollamad.http.errors import status_of
from ollamad.http.openai.errors import openai_error
from ollamad.http.sse import TextEvents, event

DONE: Final = event(b"[DONE]")
"""After this nothing comes. An answer that failed ends without it."""

_encode = msgspec.json.Encoder().encode


def text_chunks(example: msgspec.Struct) -> TextEvents:
    """Return what makes events like *example*, which has `TextEvents.TEXT` in its text's place."""
    return TextEvents(chunk(example), _encode)


def chunk(whole: msgspec.Struct) -> bytes:
    """Return one event."""
    return event(_encode(whole))


def failure(error: OllamadError) -> bytes:
    """Return the event that a stream ends with when its answer cannot go on."""
    return event(openai_error(status_of(error), error.message, error))
