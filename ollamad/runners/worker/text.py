"""Tokens' bytes to text: characters split between tokens, and stop texts across tokens. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextAssembler:
    """Turns the bytes of one answer's tokens into text that can be sent at once.

    What could still become a stop text is held back; so are the first bytes of a character whose
    rest has not come. Bytes that are no UTF-8 at all become U+FFFD.

    The stop text that is complete first ends the answer, among those complete at the same
    character the longest: so the answer does not depend on how the model cut it into tokens.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stop: str | None = None
        """The stop text that was completed; nothing more belongs to the answer."""

    @property
    def is_stopped(self) -> bool:
        """A stop text was completed."""
        return self.stop is not None

    def feed(self, piece: bytes) -> str:
        """Return the text that is certain after *piece*; nothing once a stop was completed."""
        if self.is_stopped:
            return ""
        text = self._decoder.decode(piece)
        if not self._stops:
            return text
        return self._release(self._held + text)

    def finish(self) -> str:
        """Return what was held back. An incomplete last character is dropped."""
        if self.is_stopped:
            return ""
        held, self._held = self._held, ""
        return held

    def _release(self, text: str) -> str:
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            _end, begin, self.stop = min(found)
            return text[:begin]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many last characters of *text* are the beginning of *stop*."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
