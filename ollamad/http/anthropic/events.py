"""The events of a streamed answer in their order: a machine of blocks, and what it writes. Pure.

One block is open at a time, and each has the next index. Thinking is signed when its block ends. A
call comes whole, so its block is never left open.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from ollamad.errors import ProtocolBroken
from ollamad.http.answer.parts import Call, Parts
from ollamad.http.anthropic.answers import SIGNATURE, tool_use_of
from ollamad.http.anthropic.wire import (
    AnswerBlock,
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputDelta,
    MessageAnswer,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    Stopped,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    Usage,
)
from ollamad.http.ollama.wire import encode
from ollamad.http.sse import TextEvents
from ollamad.http.sse import event as sse_event


class Open(enum.Enum):
    """Which block is open."""

    NONE = "none"
    THINKING = "thinking"
    TEXT = "text"
    OVER = "over"
    """None will be any more."""


class Comes(enum.Enum):
    """What comes next of an answer."""

    THINKING = "thinking"
    TEXT = "text"
    CALL = "call"
    END = "end"


_FROM_ANY: Final = {
    Comes.THINKING: Open.THINKING,
    Comes.TEXT: Open.TEXT,
    Comes.CALL: Open.NONE,
    Comes.END: Open.OVER,
}
TRANSITIONS: Final[Mapping[Open, Mapping[Comes, Open]]] = {
    Open.NONE: _FROM_ANY,
    Open.THINKING: _FROM_ANY,
    Open.TEXT: _FROM_ANY,
    Open.OVER: {},
}
"""A block that comes to a row of its own kind goes on; any other ends the one that is open."""


def advance(state: Open, comes: Comes) -> Open:
    """Return which block is open after what *comes*. Raises ProtocolBroken after the end."""
    try:
        return TRANSITIONS[state][comes]
    except KeyError:
        raise ProtocolBroken(f"an answer that is {state.value} cannot take {comes.value}") from None


class EventWriter:
    """Writes one answer's events. Everything it returns ends with a whole event."""

    def __init__(self, *, shows_thinking: bool = True) -> None:
        self.n_calls = 0
        self._shows_thinking = shows_thinking
        self._open = Open.NONE
        self._index = -1
        self._blank = ""
        """White space that no text has followed yet: between thinking and a call it is nothing."""
        self._texts: TextEvents | None = None
        """Makes the events of the open text block; `None` while none is open."""

    def begin(self, message: MessageAnswer) -> bytes:
        """Return the answer's beginning."""
        return _event(MessageStart(message=message)) + _event(Ping())

    def text(self, text: str) -> bytes:
        """Return the events of more text. This is what happens for each token."""
        if self._texts is not None:
            return self._texts.event(text)
        text = self._blank + text
        if not text.strip():
            self._blank = text
            return b""
        return self._enter(Comes.TEXT) + self._delta(TextDelta(text=text))

    def add(self, parts: Parts) -> bytes:
        """Return the events of more of an answer, thinking, text and calls in this order."""
        written = []
        if parts.thinking:
            written.append(self._thinking(parts.thinking))
        if parts.text:
            written.append(self.text(parts.text))
        written.extend(map(self._call, parts.calls))
        return b"".join(written)

    def end(self, stopped: Stopped, usage: Usage) -> bytes:
        """Return the answer's end."""
        return b"".join(
            (
                self._enter(Comes.END),
                _event(MessageDelta(delta=stopped, usage=usage)),
                _event(MessageStop()),
            )
        )

    def _thinking(self, thinking: str) -> bytes:
        started = self._enter(Comes.THINKING)
        if not self._shows_thinking:
            return started
        return started + self._delta(ThinkingDelta(thinking=thinking))

    def _call(self, call: Call) -> bytes:
        closed = self._enter(Comes.CALL)
        self.n_calls += 1
        block = tool_use_of(call)
        arguments, block.input = block.input, {}
        return b"".join(
            (
                closed,
                self._start(block),
                self._delta(InputDelta(partial_json=msgspec.json.encode(arguments).decode())),
                _event(BlockStop(index=self._index)),
            )
        )

    def _enter(self, comes: Comes) -> bytes:
        """Return the end of the open block and the beginning of the next, if they differ."""
        before, self._open = self._open, advance(self._open, comes)
        self._blank = ""
        if before is self._open:
            return b""
        self._texts = None
        return self._close(before) + self._begin_block()

    def _close(self, before: Open) -> bytes:
        if before is Open.NONE:
            return b""
        signed = (
            self._delta(SignatureDelta(signature=SIGNATURE)) if before is Open.THINKING else b""
        )
        return signed + _event(BlockStop(index=self._index))

    def _begin_block(self) -> bytes:
        match self._open:
            case Open.THINKING:
                return self._start(ThinkingBlock(thinking="", signature=""))
            case Open.TEXT:
                started = self._start(TextBlock(text=""))
                example = self._delta(TextDelta(text=TextEvents.TEXT))
                self._texts = TextEvents(example, encode)
                return started
            case _:
                return b""

    def _start(self, block: AnswerBlock) -> bytes:
        self._index += 1
        return _event(BlockStart(index=self._index, content_block=block))

    def _delta(self, delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta) -> bytes:
        return _event(BlockDelta(index=self._index, delta=delta))


def _event(event: Event) -> bytes:
    return sse_event(encode(event), str(type(event).__struct_config__.tag))
