"""How a template failure is worded: one prefix and a line number, wherever it happens."""

from __future__ import annotations

from typing import Final

from ollamad.errors import TemplateBroken

QUOTED_CHARS_MAX: Final = 40
"""Characters of a template that a message quotes: the rest says nothing more to the reader."""


def broken(line: int, message: str) -> TemplateBroken:
    """Return the error for *message* at *line* of the template."""
    return TemplateBroken(f"template error: line {line}: {message}")


def quoted(text: str) -> str:
    """Return *text* for use in a message: in quotes, escaped, and short."""
    short = text if len(text) <= QUOTED_CHARS_MAX else text[:QUOTED_CHARS_MAX] + "…"
    escaped = short.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"' if not short.isprintable() else f'"{short}"'
