"""How a model marks what it thinks and which tools it calls: derived from its template.

`format_of` is the front door: it renders probes with the template and takes from the difference
what stands around thoughts, texts and calls, so that a new model needs no code. What no probe can
show is in a short table (`namedformats`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ollamad.errors import TemplateBroken
from ollamad.http.answer.answerparser import MarkedParser
from ollamad.http.answer.callderivation import call_format
from ollamad.http.answer.callformat import CallFormat, tags_in
from ollamad.http.answer.callgrammar import call_grammar
from ollamad.http.answer.callreaders import read_calls
from ollamad.http.answer.channels import ChannelParser, Channels
from ollamad.http.answer.declared import DeclaredTools
from ollamad.http.answer.namedformats import AFTER_PROBES, BEFORE_PROBES, DEFAULT_CALLS, PYTHON_TAG
from ollamad.http.answer.parts import AnswerParser, Marks
from ollamad.http.answer.probes import Prober
from ollamad.http.answer.thinkingmarks import text_marks, thinking_marks
from ollamad.runners.protocol import Grammar

FORMATS_KEPT_MAX: Final = 64
"""Templates whose format is remembered."""

SHOWN_TOKENS_MAX: Final = 64
"""Marks of one format that are looked for among a model's control tokens."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """The format of one template's answers."""

    thinking: Marks | None = None
    calls: CallFormat | None = None
    dropped: tuple[str, ...] = ()
    """Marks around plain text, which are no part of it."""
    text_mark: str = ""
    """What stands in front of plain text; most formats have nothing there."""
    restart: str = ""
    """What begins another message of the same turn, after a thought."""
    channels: Channels | None = None
    """Answers are messages with headers."""
    origin: str = ""
    """Where `calls` comes from: `derived`, or the name of a format. For logs and tables."""

    def begins_thinking(self, prompt: str) -> bool:
        """*prompt* ends inside thinking that its template has opened for the answer."""
        opening = self.thinking.open.rstrip() if self.thinking is not None else ""
        return bool(opening) and prompt.rstrip().endswith(opening)

    def parser(
        self, prompt: str, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> AnswerParser | None:
        """Return what reads an answer to *prompt*; `None` where all of it is text.

        *tools* are those that the request declares. Without any, calls are text; `None` is not
        known: calls are found by their marks alone. A marked call of a tool that is not declared is
        a call: whoever asked can tell the model so, and marks in a text are no use to anybody.
        Where only the form of an answer makes it a call, the name must be declared.
        """
        declared = DeclaredTools(tools)
        calls = self.calls if declared else None
        if self.channels is not None and self.calls is not None:
            return ChannelParser(self.channels, self.calls, declared)
        if self.thinking is None and calls is None and not self.dropped:
            return None
        form = calls
        return MarkedParser(
            thinking=None if self.thinking is None else (self.thinking.open, self.thinking.close),
            triggers=(*filter(None, (form.trigger,)), *form.triggers) if form else (),
            calls=(lambda: read_calls(form, declared)) if form else None,
            is_bare=form is not None and not form.trigger,
            dropped=self.dropped,
            is_thinking=self.begins_thinking(prompt),
            origin=self.origin,
        )

    def shown_tokens(self, tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[str, ...]:
        """Return the marks that a runner must show though they may be control tokens.

        Control tokens have no text to anybody else; these are what `parser` reads.
        """
        texts: list[str] = [*self.dropped, self.restart]
        if self.thinking is not None:
            texts += (self.thinking.open, self.thinking.close)
        if self.channels is not None:
            texts += (self.channels.start, self.channels.header_end, *self.channels.ends)
        if self.calls is not None and (self.channels is not None or DeclaredTools(tools)):
            texts += self.calls.literals
        marks = dict.fromkeys(mark for text in texts for mark in tags_in(text))
        return tuple(marks)[:SHOWN_TOKENS_MAX]

    def call_grammar(
        self,
        tools: Sequence[Mapping[str, Any]],
        names: Sequence[str] = (),
        *,
        is_parallel: bool = True,
        may_answer: bool = False,
    ) -> Grammar:
        """Return the grammar of an answer that calls *tools*, those with one of *names* if given.

        With *may_answer* the answer may be text instead, but no call in it is invalid. It says
        nothing of thinking: see `structured.after_thinking`. Raises ValueError if no tool is left.
        """
        return call_grammar(
            self.calls or DEFAULT_CALLS,
            tools,
            names,
            is_parallel=is_parallel,
            may_answer=may_answer,
            text_header=self.channels.text if self.channels is not None else self.text_mark,
            restart=self.restart,
        )


PLAIN: Final = AnswerFormat()
"""All of an answer is text."""


@functools.lru_cache(maxsize=FORMATS_KEPT_MAX)
def format_of(template: str) -> AnswerFormat:
    """Return the format of answers to prompts of *template*. Takes some 0.02 s once.

    1. The template belongs to a format whose calls no probe can show: that.
    2. What probes show.
    3. Probes show no calls, but the template's own text has a known format's marks: that format.
    4. Nothing: all of an answer is text.
    """
    try:
        prober = Prober(template)
    except TemplateBroken:
        return PLAIN  # Rendering the prompt tells it to whoever asks.
    for named in BEFORE_PROBES:
        if named.is_it(template):
            return AnswerFormat(
                thinking=named.thinking,
                calls=named.calls,
                channels=named.channels,
                restart=named.channels.start if named.channels else "",
                origin=named.name,
            )
    thinking = thinking_marks(prober, template)
    text = text_marks(prober, thinking)
    calls = call_format(prober, thinking, text)
    origin = "derived" if calls else ""
    if calls is None:
        named_format = next((named for named in AFTER_PROBES if named.is_it(template)), None)
        if named_format is not None:
            calls, origin = named_format.calls, named_format.name
    if calls is not None and PYTHON_TAG in template:
        calls = dataclasses.replace(calls, triggers=(PYTHON_TAG,))
    _log.debug("calls: %s; thinking: %s", origin or "none", thinking)
    return AnswerFormat(
        thinking=thinking,
        calls=calls,
        dropped=text.dropped,
        text_mark=text.open,
        restart=text.restart,
        origin=origin,
    )
