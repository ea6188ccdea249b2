"""Tables for people at a terminal, and the same tables as plain text for everything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ollamactl.render import printable, table, write

Cell = str | tuple[str, str]
"""A text, or a text and rich's style for it."""

UNKNOWN: Final = "-"
WRAPPED: Final = frozenset({"NAME", "MODEL", "HOLDS", "WAITS FOR"})
"""Columns that may need several lines."""

GOOD: Final = "green"
PASSING: Final = "yellow"
BAD: Final = "bold red"
FAINT: Final = "dim"

STYLES: Final = {
    "serving": GOOD,
    "paused": PASSING,
    "draining": PASSING,
    "stopped": BAD,
    "ready": GOOD,
    "starting": PASSING,
    "loading": PASSING,
    "stopping": PASSING,
    "reclaiming": PASSING,
    "gone": FAINT,
    "healthy": GOOD,
    "suspect": PASSING,
    "quarantined": BAD,
    "recovering": PASSING,
    "debug": FAINT,
    "info": "",
    "warning": PASSING,
    "error": BAD,
}
"""How a state or a level looks."""


def state_cell(state: str, text: str | None = None) -> Cell:
    """Return *text*, or the state itself, in the colour of the state."""
    return (text or state, STYLES.get(state, ""))


def text_of(cell: Cell) -> Text:
    """Return a cell for rich. Never as its markup: names may contain square brackets."""
    content, style = (cell, "") if isinstance(cell, str) else cell
    return Text(printable(content), style)


def show_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: str = "") -> None:
    """Write a table to stdout; columns whose header is in *numbers* (by spaces) go to the right.

    At a narrow terminal names and reasons are broken into lines; numbers never are.
    """
    if not sys.stdout.isatty():
        plain = [[cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows]
        write(table(header, plain))
        return
    right = numbers.split(" ")
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in header:
        shown.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name not in WRAPPED,
            overflow="fold",
        )
    for row in rows:
        shown.add_row(*map(text_of, row))
    Console(file=sys.stdout, highlight=False).print(shown)
