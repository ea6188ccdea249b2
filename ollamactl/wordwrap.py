"""Word wrap for text that arrives in pieces.

A word is held back until it is complete, and then written where it fits. So nothing written is
ever taken back, and no cursor movement is needed; the price is that text runs one word late.
"""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len

MARGIN_COLUMNS: Final = 5
"""Columns left free at the right edge."""
COLUMNS_MIN: Final = 20
"""Narrower terminals wrap by themselves."""
TAB_COLUMNS: Final = 8


class WordWrap:
    """Takes pieces of text and returns what may be written now."""

    def __init__(self, terminal_columns: int) -> None:
        self._columns = max(terminal_columns - MARGIN_COLUMNS, COLUMNS_MIN)
        self._at = 0
        self._word = ""
        self._word_columns = 0
        self._blanks = ""

    def feed(self, text: str) -> str:
        """Return what can be written once *text* has arrived."""
        out: list[str] = []
        for char in text:
            if char == "\n":
                out.append(self._flush_word())
                out.append("\n")
                self._at, self._blanks = 0, ""
            elif char in " \t":
                out.append(self._flush_word())
                self._blanks += char
            else:
                self._hold(char, out)
        return "".join(out)

    def finish(self) -> str:
        """Return what is still held back, and forget it."""
        out = self._flush_word() + self._blanks
        self._blanks = ""
        return out

    @property
    def at_line_start(self) -> bool:
        """Whether the next character would begin a line."""
        return self._at == 0 and not self._word

    def _hold(self, char: str, out: list[str]) -> None:
        columns = cell_len(char)
        # Wide characters (Chinese, Japanese, emoji) are words of their own: between them a line
        # may end anywhere, and waiting for a space could hold back the whole answer.
        if columns > 1 or self._word_columns + columns > self._columns:
            out.append(self._flush_word())
        self._word += char
        self._word_columns += columns
        if columns > 1:
            out.append(self._flush_word())

    def _flush_word(self) -> str:
        if not self._word:
            return ""
        blanks_columns = sum(TAB_COLUMNS if blank == "\t" else 1 for blank in self._blanks)
        if self._at and self._at + blanks_columns + self._word_columns > self._columns:
            out, self._at = f"\n{self._word}", self._word_columns
        else:
            out = self._blanks + self._word
            self._at += blanks_columns + self._word_columns
        self._word, self._word_columns, self._blanks = "", 0, ""
        return out
