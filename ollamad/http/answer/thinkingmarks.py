"""Derives the marks of thinking from what a template makes of probes. Pure but for rendering."""

from __future__ import annotations

import dataclasses
from typing import Final

from ollamad.http.answer.callformat import common_end, common_start, first_mark, tokens
from ollamad.http.answer.parts import Marks
from ollamad.http.answer.probes import ANSWER, EOS, FIRST, REASON, Prober

_KNOWN: Final = (
    Marks("<think>", "</think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""For templates that never show what was thought, which most do not, but open or remove it."""

MARK_CHARS_MAX: Final = 64
"""Length of a mark. What is longer is no mark but a text of the template's."""


def thinking_marks(prober: Prober, template: str) -> Marks | None:
    """Return the marks around what is thought; `None` if the template knows no thinking.

    1. What was thought stands in an earlier answer: the marks are the texts around it.
    2. It does not, but the template has well-known marks in its own text.
    """
    for think in (None, True):
        found = _around_reason(prober, think)
        if found is not None:
            return found
    for marks in _KNOWN:
        if marks.close in template:
            return marks
    return None


def _around_reason(prober: Prober, think: bool | None) -> Marks | None:
    """Return the marks around a thought that the template shows before a text, or before a call."""
    for calls, following in (((), ANSWER), ((FIRST,), FIRST[0])):
        plain = prober.answer(content=ANSWER, calls=calls, think=think) or ""
        thoughtful = prober.answer(content=ANSWER, thinking=REASON, calls=calls, think=think) or ""
        before, found, after = thoughtful.partition(REASON)
        if not found or following not in plain or following not in after:
            continue
        close = _first_mark(after.partition(following)[0])
        if close and len(close) <= MARK_CHARS_MAX:
            header = plain.partition(following)[0]
            return Marks(_open_mark(prober, before, header, think), close)
    return None


def _first_mark(text: str) -> str:
    """Return the tag that *text* begins with, or its first line."""
    text = text.strip()
    return first_mark(text) or text.partition("\n")[0].strip()


def _open_mark(prober: Prober, before: str, plain: str, think: bool | None) -> str:
    """Return what stands before a thought, but not before a plain answer.

    Where both have the same header, the prompt for an answer opens the thought.
    """
    before = before.rstrip()
    same = common_end(before, plain.rstrip())
    if same == before:
        opened = prober.opening(True if think is None else think) or ""
        return opened[len(common_start(opened, before)) :].strip()
    own = tokens(before[: len(before) - len(same)])
    # To the nearest beginning of a tag: the mark is that tag with all that follows.
    while own:
        token = own.pop()
        same = token + same
        if first_mark(token):
            break
    mark = same.strip()
    return mark if len(mark) <= MARK_CHARS_MAX else ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextMarks:
    """What stands around plain text in a turn; empty where nothing does."""

    open: str = ""
    close: str = ""
    restart: str = ""
    """Begins another message of the same turn, after a thought."""
    turn_end: str = ""
    """What ends a turn after the marks of its text; the end-of-turn token's text is part of it."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """The texts that are no part of an answer."""
        ending = self.turn_end[: self.turn_end.rfind("<")] if self.open else ""
        marks = (self.open, self.close, self.restart, ending)
        return tuple(mark for mark in marks if 0 < len(mark) <= MARK_CHARS_MAX)


def text_marks(prober: Prober, thinking: Marks | None) -> TextMarks:
    """Return marks around plain text, which few formats have."""
    plain = prober.answer(content=ANSWER)
    opening = prober.opening(False) or prober.opening()
    if plain is None or opening is None or ANSWER not in plain:
        return TextMarks()
    before, _, after = plain.partition(ANSWER)
    after = after.partition(EOS)[0].strip()
    before = before[len(common_start(before, opening)) :]
    if thinking is not None:
        before = before.rpartition(thinking.close)[2]
    mark = before.strip()
    if not first_mark(mark) or len(mark) > MARK_CHARS_MAX or opening.rstrip().endswith(mark):
        return TextMarks(turn_end=after)
    closing = _first_mark(after)
    if closing == after:
        closing = ""
    restart = ""
    if thinking is not None:
        turn = prober.answer(content=ANSWER, thinking=REASON) or ""
        between = turn.partition(REASON)[2].partition(ANSWER)[0].strip()
        restart = between.removeprefix(thinking.close).removesuffix(mark).strip()
    return TextMarks(
        open=mark,
        close=closing,
        restart=restart if first_mark(restart) else "",
        turn_end=after.removeprefix(closing).strip(),
    )
