"""What an answer consists of, whichever API it goes to: thinking, text, and calls of tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Marks:
    """A pair of texts around a part of an answer."""

    open: str
    close: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call that the model made."""

    id: str
    """Unique among the calls of a conversation."""
    name: str
    arguments: Mapping[str, Any]


@dataclasses.dataclass(slots=True)
class Parts:
    """What is new of an answer, in this order."""

    thinking: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.thinking or self.text or self.calls)

    def add(self, more: Parts) -> None:
        """Take what comes after."""
        self.thinking += more.thinking
        self.text += more.text
        self.calls += more.calls


class AnswerParser(Protocol):
    """Takes a model's text apart, piece by piece.

    Nothing of the text is lost but the marks themselves: what is no well-formed call in the end is
    text. A parser belongs to one answer.
    """

    def feed(self, text: str) -> Parts:
        """Return what is certain after *text*. Takes time for the new text only."""
        ...

    def finish(self) -> Parts:
        """Return what was held back."""
        ...
