"""How a model marks what it thinks and which tools it calls."""

from __future__ import annotations

import dataclasses
from typing import Final

from ollamad.http.answer.marked import MarkedParser
from ollamad.http.answer.parts import AnswerParser


@dataclasses.dataclass(frozen=True, slots=True)
class Marks:
    """A pair of texts around a part of an answer."""

    open: str
    close: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """The marks of one template."""

    thinking: Marks | None = None
    calls: Marks | None = None

    def begins_thinking(self, prompt: str) -> bool:
        """*prompt* ends inside thinking that its template has opened for the answer."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking.open.rstrip())

    def parser(self, prompt: str) -> AnswerParser | None:
        """Return what reads an answer to *prompt*; `None` where all of it is text."""
        if self.thinking is None and self.calls is None:
            return None
        return MarkedParser(
            thinking=_pair(self.thinking),
            calls=_pair(self.calls),
            is_thinking=self.begins_thinking(prompt),
        )


def _pair(marks: Marks | None) -> tuple[str, str] | None:
    return None if marks is None else (marks.open, marks.close)


PLAIN: Final = AnswerFormat()
"""All of an answer is text."""

_THINKING: Final = Marks("<think>", "</think>")
_CALLS: Final = Marks("<tool_call>", "</tool_call>")


def format_of(template: str) -> AnswerFormat:
    """Return the marks that *template* uses."""
    return AnswerFormat(
        thinking=_THINKING if _THINKING.open in template else None,
        calls=_CALLS if _CALLS.open in template else None,
    )
