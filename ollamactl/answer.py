"""Shows one answer while it arrives: thinking, text, word wrap, and the statistics after it.

Knows the pieces of a stream, not where they come from.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

from ollamactl.render import note, printable
from ollamactl.wire import Piece
from ollamactl.wordwrap import WordWrap
from ollamad.units import format_duration

_GREY: Final = "\x1b[90m"
_GREY_BOLD: Final = "\x1b[1;90m"
_PLAIN: Final = "\x1b[0m"


class AnswerPrinter:
    """Writes one answer to stdout."""

    def __init__(self, *, hides_thinking: bool = False, wraps: bool = True) -> None:
        self._hides_thinking = hides_thinking
        self._is_terminal = sys.stdout.isatty()
        self._is_coloured = self._is_terminal and not os.environ.get("NO_COLOR")
        # Only a terminal has a width; a file gets the text as the model wrote it.
        self._wrap = (
            WordWrap(shutil.get_terminal_size().columns) if wraps and self._is_terminal else None
        )
        self._is_thinking = False
        self._last_thought = ""
        self.text = ""
        self.thinking = ""
        """What has arrived so far."""

    def take(self, piece: Piece) -> None:
        """Write what *piece* adds."""
        if thought := piece.thinking or piece.message.thinking:
            self.thinking += thought
            if not self._hides_thinking:
                self._think(thought)
        if text := piece.response or piece.message.content:
            self._end_thinking()
            self.text += text
            self._write(text)

    def finish(self) -> None:
        """Write what is still held back."""
        self._end_thinking()
        if self._wrap is not None:
            self._raw(self._wrap.finish())

    def break_off(self) -> None:
        """End an answer that goes no further, so that what is printed next begins a line."""
        self.finish()
        if self._is_terminal and self._last_char not in {"", "\n"}:
            self._raw("\n")

    _last_char = ""

    def _think(self, thought: str) -> None:
        if not self._is_thinking:
            self._is_thinking = True
            self._styled("Thinking...\n", _GREY_BOLD)
        self._last_thought = thought
        self._write(thought, _GREY)

    def _end_thinking(self) -> None:
        if not self._is_thinking:
            return
        self._is_thinking = False
        if self._wrap is not None:
            self._styled(self._wrap.finish(), _GREY)
        if not self._last_thought.endswith("\n"):
            self._write("\n")
        self._styled("...done thinking.\n\n", _GREY_BOLD)

    def _write(self, text: str, style: str = "") -> None:
        safe = printable(text) if self._is_terminal else text
        self._styled(self._wrap.feed(safe) if self._wrap is not None else safe, style)

    def _styled(self, text: str, style: str) -> None:
        if text:
            self._raw(f"{style}{text}{_PLAIN}" if style and self._is_coloured else text)
            self._last_char = text[-1]

    def _raw(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._last_char = text[-1]


def print_statistics(last: Piece) -> None:
    """Write the numbers of an answer's last piece to stderr; those that are zero are left out."""
    rows: list[tuple[str, str]] = []
    for name, value_ns in (
        ("total duration", last.total_duration),
        ("load duration", last.load_duration),
    ):
        if value_ns > 0:
            rows.append((name, format_duration(value_ns / 1e9)))
    for name, count, value_ns in (
        ("prompt eval", last.prompt_eval_count, last.prompt_eval_duration),
        ("eval", last.eval_count, last.eval_duration),
    ):
        if count > 0:
            rows.append((f"{name} count", f"{count} token(s)"))
        if value_ns > 0:
            rows.append((f"{name} duration", format_duration(value_ns / 1e9)))
            rows.append((f"{name} rate", f"{count / (value_ns / 1e9):.2f} tokens/s"))
    for name, value in rows:
        note(f"{name + ':':<21} {value}")
