"""Takes an answer apart at its marks while it comes: thinking, text, calls. Pure.

| the answer is in | on | goes on in |
|---|---|---|
| START | opening of thinking; beginning of calls; text | THINKING; CALL; TEXT |
| THINKING | its close | START |
| TEXT | beginning of calls | CALL |
| CALL | its end; no call after all | START; TEXT |

Blanks beside marks are no part of an answer: they go after an opening and around a close, and
between text and a call. What is thought stays thought, until it is closed. Text in which an opening
is quoted stays text: models think before they answer.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from typing import Final

from ollamad.http.answer.callreaders import Story
from ollamad.http.answer.parts import Call, Parts
from ollamad.http.answer.wants import Marks, Want

BLANKS_HELD_MAX: Final = 64
"""Blanks that wait for what comes after them. Of longer runs the first ones go out."""

_BRACKETS: Final = ("[", "{")

_log = logging.getLogger(__name__)


class Inside(enum.Enum):
    """What an answer is in."""

    START = "start"
    """Nothing but blanks has come since the answer, or since thinking or a call ended."""
    THINKING = "thinking"
    TEXT = "text"
    CALL = "call"


class Event(enum.Enum):
    """What is met in an answer."""

    OPENED = "opened"
    CLOSED = "closed"
    CALLS = "calls"
    TEXT = "text"


TRANSITIONS: Final[Mapping[Inside, Mapping[Event, Inside]]] = {
    Inside.START: {
        Event.OPENED: Inside.THINKING,
        Event.CALLS: Inside.CALL,
        Event.TEXT: Inside.TEXT,
    },
    Inside.THINKING: {Event.CLOSED: Inside.START},
    Inside.TEXT: {Event.CALLS: Inside.CALL},
    Inside.CALL: {Event.CLOSED: Inside.START, Event.TEXT: Inside.TEXT},
}


class MarkedParser:
    """An `AnswerParser` for formats with marks."""

    def __init__(
        self,
        *,
        thinking: tuple[str, str] | None = None,
        triggers: tuple[str, ...] = (),
        calls: Callable[[], Story] | None = None,
        is_bare: bool = False,
        dropped: tuple[str, ...] = (),
        is_thinking: bool = False,
        origin: str = "",
    ) -> None:
        """*triggers* begin *calls*, wherever they come; if *is_bare*, the start of an answer may.

        Marks that are *dropped* are those of text itself. *origin* is the format's, for the log.
        """
        self._origin = origin
        opening, closing = thinking or ("", "")
        self._thinking = (opening, closing)
        self._triggers = frozenset(triggers)
        self._calls = calls
        self._is_bare = is_bare and calls is not None
        self._marks = {
            Inside.START: Marks(opening, closing, *triggers, *dropped),
            Inside.TEXT: Marks(*triggers, *dropped),
            Inside.THINKING: Marks(closing, opening),
        }
        self._inside = Inside.THINKING if is_thinking else Inside.START
        self._held = ""
        self._blanks = ""
        self._trims = is_thinking
        self._reading: _Reading | None = None

    def feed(self, text: str) -> Parts:
        """See AnswerParser."""
        return self._take(text, is_last=False)

    def finish(self) -> Parts:
        """See AnswerParser."""
        parts = self._take("", is_last=True)
        self._add(self._blanks, parts)
        self._blanks = ""
        return parts

    def _take(self, text: str, *, is_last: bool) -> Parts:
        parts = Parts()
        rest: str | None = text
        while rest is not None:
            if self._reading is not None:
                rest = self._read(self._reading, rest, parts, is_last=is_last)
            else:
                rest = self._search(self._held + rest, parts, is_last=is_last)
        return parts

    def _search(self, rest: str, parts: Parts, *, is_last: bool) -> str | None:
        """Look for the next mark; return what comes after it."""
        self._held = ""
        if self._inside is Inside.START and self._is_bare and rest.lstrip()[:1] in _BRACKETS:
            self._begin("")
            return rest
        marks = self._marks[self._inside]
        at, mark = marks.find(rest, is_last=is_last)
        self._put(rest[:at], parts)
        if not mark:
            self._held = rest[at:]
            return None
        after = rest[at + len(mark) :]
        if mark in self._triggers:
            self._begin(mark)
        elif self._is_text_here(mark):
            self._put(mark, parts)
        elif mark == self._thinking[0] and self._inside is Inside.START:
            self._move(Event.OPENED)
        elif mark == self._thinking[1] and self._inside is Inside.THINKING:
            self._move(Event.CLOSED)
        else:
            # A mark around text; or one of thinking again that has been said already, by the
            # prompt or by the model.
            self._trims = True
        return after

    def _is_text_here(self, mark: str) -> bool:
        """A mark of thinking is quoted: thinking opens before any text, and only once."""
        if self._inside is Inside.THINKING:
            return mark == self._thinking[0] and not self._trims
        return self._inside is Inside.TEXT and mark in self._thinking

    def _begin(self, mark: str) -> None:
        assert self._calls is not None  # noqa: S101 - there are triggers only with it
        self._reading = _Reading(mark, self._calls())
        self._inside = TRANSITIONS[self._inside][Event.CALLS]

    def _move(self, event: Event) -> None:
        self._inside = TRANSITIONS[self._inside][event]
        self._trims = True
        self._blanks = ""

    def _read(self, reading: _Reading, text: str, parts: Parts, *, is_last: bool) -> str | None:
        after = reading.take(text, is_last=is_last)
        if reading.calls:
            parts.calls += tuple(reading.calls)
            reading.calls.clear()
            self._blanks = ""
        if after is None:
            return None
        self._reading = None
        if reading.is_call:
            self._move(Event.CLOSED)
        else:
            _log.info(
                "a call cannot be read in its form (%s): its %d characters stay text",
                self._origin,
                len(reading.raw),
            )
            self._inside = TRANSITIONS[self._inside][Event.TEXT]
            self._put(reading.raw, parts)
        return after

    def _put(self, text: str, parts: Parts) -> None:
        """Add *text* to where the answer is, but for the blanks that a mark may follow."""
        if self._trims:
            text = text.lstrip()
        if not text:
            return
        self._trims = False
        text = self._blanks + text
        kept = len(text.rstrip())
        kept = max(kept, len(text) - BLANKS_HELD_MAX)
        self._blanks = text[kept:]
        self._add(text[:kept], parts)

    def _add(self, text: str, parts: Parts) -> None:
        if self._inside is Inside.THINKING:
            parts.thinking += text
            return
        parts.text += text
        if self._inside is Inside.START and text.strip():
            self._inside = TRANSITIONS[self._inside][Event.TEXT]


class _Reading:
    """A story that is being told, with all that it has heard since its last call."""

    def __init__(self, mark: str, story: Story) -> None:
        self.calls: list[Call] = []
        self.is_call = False
        self.raw = ""
        """When it is told: what came since the last call, its marks included."""
        self._heard = [mark]
        self._story = story
        self._want: Want | None = None
        self._go_on("")

    def take(self, text: str, *, is_last: bool) -> str | None:
        """Return what comes after the calls; `None` as long as they may go on."""
        self._heard.append(text)
        rest = text
        while self._want is not None:
            after = self._want.take(rest, is_last=is_last)
            if after is None:
                return None
            rest = after
            self._go_on(rest)
        heard = "".join(self._heard)
        self.raw = heard[: len(heard) - len(rest)]
        return rest

    def _go_on(self, rest: str) -> None:
        """Let the story say what it wants next, when all but *rest* has been heard."""
        try:
            while isinstance(told := next(self._story), Call):
                self.calls.append(told)
                self._heard = [rest]
            self._want = told
        except StopIteration as end:
            self._want = None
            self.is_call = end.value
