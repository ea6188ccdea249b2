"""Reads answers that are a sequence of messages, each with a header that says whom it is for.

    HEADER header_end BODY end   start HEADER header_end BODY end   ...

| the answer is in | on | goes on in |
|---|---|---|
| HEADER | its end: a thought's, a text's, a call's | THINKING, TEXT, CALL |
| THINKING, TEXT, CALL | the message's end, or the start of another | HEADER |
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Final

from ollamad.http.answer.answerparser import MarkedParser
from ollamad.http.answer.callformat import CallFormat, Encoding
from ollamad.http.answer.callreaders import new_call_id, read_calls
from ollamad.http.answer.declared import DeclaredTools, mapping_of
from ollamad.http.answer.parts import Call, Parts
from ollamad.http.answer.wants import Marks

HEADER_CHARS_MAX: Final = 256
"""Characters of a header. A longer one is none: the model has lost its form, and all is text."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The marks of messages within an answer."""

    start: str
    """What begins another message."""
    header_end: str
    ends: tuple[str, ...]
    thought: str
    """In the header of what is thought. Empty: nothing is."""
    text: str
    """The header of a plain text, its end included."""
    recipient: re.Pattern[str]
    """Finds the tool that a message is for, in its header."""
    people: frozenset[str] = frozenset()
    """Recipients that are no tools."""


class In(enum.Enum):
    """What an answer is in."""

    HEADER = "header"
    THINKING = "thinking"
    TEXT = "text"
    CALL = "call"


class Met(enum.Enum):
    """What is met in an answer."""

    THOUGHT = "thought"
    TEXT = "text"
    CALL = "call"
    END = "end"


TRANSITIONS: Final[Mapping[In, Mapping[Met, In]]] = {
    In.HEADER: {Met.THOUGHT: In.THINKING, Met.TEXT: In.TEXT, Met.CALL: In.CALL},
    In.THINKING: {Met.END: In.HEADER},
    In.TEXT: {Met.END: In.HEADER},
    In.CALL: {Met.END: In.HEADER},
}


class ChannelParser:
    """An `AnswerParser` for messages with headers."""

    def __init__(self, channels: Channels, form: CallFormat, declared: DeclaredTools) -> None:
        self._channels = channels
        # The header has been read when its message is.
        header, found, begin = form.begin.partition(channels.header_end)
        self._form = dataclasses.replace(form, begin=begin if found else header)
        self._declared = declared
        self._inside = In.HEADER
        self._marks = {
            In.HEADER: Marks(channels.header_end),
            In.THINKING: Marks(*channels.ends, channels.start),
        }
        self._held = ""
        self._header = ""
        self._body: list[str] = []
        self._is_fresh = False

    def feed(self, text: str) -> Parts:
        """See AnswerParser."""
        return self._take(text, is_last=False)

    def finish(self) -> Parts:
        """See AnswerParser."""
        parts = self._take("", is_last=True)
        if self._inside is In.HEADER:
            # What never became a header. The mark that begins one is no text.
            parts.text += self._header.removeprefix(self._channels.start).strip()
        elif self._inside is In.CALL:
            self._end_call(parts)
        return parts

    def _take(self, text: str, *, is_last: bool) -> Parts:
        parts = Parts()
        rest = self._held + text
        while True:
            marks = self._marks[In.HEADER if self._inside is In.HEADER else In.THINKING]
            at, mark = marks.find(rest, is_last=is_last)
            self._put(rest[:at], parts)
            if not mark:
                self._held = rest[at:]
                return parts
            rest = rest[at + len(mark) :]
            if self._inside is In.HEADER:
                self._inside = TRANSITIONS[self._inside][self._met()]
                self._is_fresh = True
            elif self._inside in TRANSITIONS:
                if self._inside is In.CALL:
                    self._end_call(parts)
                self._inside = TRANSITIONS[self._inside][Met.END]
                self._header = ""

    def _met(self) -> Met:
        if self._recipient():
            return Met.CALL
        channels = self._channels
        return Met.THOUGHT if channels.thought and channels.thought in self._header else Met.TEXT

    def _recipient(self) -> str:
        found = self._channels.recipient.search(self._header)
        return "" if found is None or found[1] in self._channels.people else found[1]

    def _put(self, text: str, parts: Parts) -> None:
        if self._is_fresh and self._inside is not In.HEADER:
            text = text.lstrip()
        if not text:
            return
        match self._inside:
            case In.HEADER:
                self._header += text
                if len(self._header) > HEADER_CHARS_MAX:
                    parts.text += self._header
                    self._header = ""
                    self._inside = TRANSITIONS[self._inside][Met.TEXT]
            case In.THINKING:
                parts.thinking += text
            case In.TEXT:
                parts.text += text
            case In.CALL:
                self._body.append(text)
        self._is_fresh = False

    def _end_call(self, parts: Parts) -> None:
        body = "".join(self._body)
        self._body.clear()
        name = self._declared.resolve(self._recipient())
        if self._form.encoding is not Encoding.TAGGED:
            arguments = mapping_of(body)
            if arguments is None or not self._declared:
                parts.text += body
            else:
                parts.calls += (Call(id=new_call_id(), name=name, arguments=arguments),)
            return
        inner = MarkedParser(
            triggers=(self._form.trigger,), calls=lambda: read_calls(self._form, self._declared)
        )
        parts.add(inner.feed(body))
        parts.add(inner.finish())
