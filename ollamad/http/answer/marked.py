"""Reads answers whose thinking and whose calls stand between marks."""

from __future__ import annotations

import enum
import secrets
from typing import Any, Final

import msgspec

from ollamad.http.answer.parts import Call, Parts

_ID_BYTES: Final = 4


class _Inside(enum.Enum):
    """Between which marks the answer is."""

    TEXT = "text"
    THINKING = "thinking"
    CALL = "call"


class MarkedParser:
    """An `AnswerParser` for marks that never nest. A call is a JSON object with its arguments."""

    def __init__(
        self,
        *,
        thinking: tuple[str, str] | None,
        calls: tuple[str, str] | None,
        is_thinking: bool = False,
    ) -> None:
        self._marks = {
            inside: marks
            for inside, marks in ((_Inside.THINKING, thinking), (_Inside.CALL, calls))
            if marks is not None
        }
        self._inside = _Inside.THINKING if is_thinking else _Inside.TEXT
        self._held = ""
        self._call: list[str] = []

    def feed(self, text: str) -> Parts:
        """See AnswerParser."""
        parts = Parts()
        rest = self._held + text
        while True:
            marks = self._awaited()
            found = [(at, mark, after) for mark, after in marks if (at := rest.find(mark)) >= 0]
            if not found:
                break
            at, mark, after = min(found, key=lambda one: one[0])
            self._take(rest[:at], parts)
            self._enter(after, mark, parts)
            rest = rest[at + len(mark) :]
        keep = max((_overlap(rest, mark) for mark, _ in marks), default=0)
        self._held = rest[len(rest) - keep :]
        self._take(rest[: len(rest) - keep], parts)
        return parts

    def finish(self) -> Parts:
        """See AnswerParser."""
        parts = Parts()
        self._take(self._held, parts)
        self._held = ""
        if self._inside is _Inside.CALL:
            self._enter(_Inside.TEXT, "", parts)
        return parts

    def _awaited(self) -> list[tuple[str, _Inside]]:
        if self._inside is _Inside.TEXT:
            return [(opening, inside) for inside, (opening, _) in self._marks.items()]
        return [(self._marks[self._inside][1], _Inside.TEXT)]

    def _take(self, text: str, parts: Parts) -> None:
        match self._inside:
            case _Inside.TEXT:
                parts.text += text
            case _Inside.THINKING:
                parts.thinking += text
            case _Inside.CALL:
                self._call.append(text)

    def _enter(self, after: _Inside, mark: str, parts: Parts) -> None:
        if self._inside is _Inside.CALL:
            text = "".join(self._call)
            self._call.clear()
            call = call_of(text)
            if call is not None:
                parts.calls += (call,)
            else:
                parts.text += self._marks[_Inside.CALL][0] + text + mark
        self._inside = after


def call_of(text: str) -> Call | None:
    """Return the call that *text* spells as JSON; `None` if it is none."""
    try:
        value: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    match value:
        case {"name": str(name), "arguments": dict(arguments)}:
            return Call(id=new_call_id(), name=name, arguments=arguments)
        case _:
            return None


def new_call_id() -> str:
    """Return an id for a call."""
    return f"call_{secrets.token_hex(_ID_BYTES)}"


def _overlap(text: str, mark: str) -> int:
    """Return how many last characters of *text* are the beginning of *mark*."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
