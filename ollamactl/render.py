"""How results look: tables in Ollama's layout, relative times, and text made safe for a terminal.

Writes to stdout (results) and stderr (errors, warnings); knows nothing of HTTP.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.cells import cell_len

from ollamactl.wire import ZERO_TIME, to_text

CELL_COLUMNS_MAX: Final = 30
"""Where a cell of a table wraps, at spaces."""
PADDING: Final = "    "
FOREVER_AFTER: Final = timedelta(days=20 * 365)
"""What ends later than this never ends, for all that matters here."""

_C0: Final = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """Return *text* without control characters, except newline and tab.

    Names, errors and answers come from elsewhere; printed as they are, an escape sequence in one
    of them could retitle the terminal, write to its clipboard or hide what is on it.
    """
    return text.translate(_C0)


def write(text: str) -> None:
    """Write *text* to stdout at once: as it is into files and pipes, made safe at a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_line(text: str = "") -> None:
    """Write *text* and a newline to stdout."""
    write(f"{text}\n")


def write_json(value: object, *, indent: int | None = 2) -> None:
    """Write *value* as JSON to stdout."""
    write_line(to_text(value, indent=indent))


def note(text: str) -> None:
    """Write a line for the person at the terminal to stderr."""
    sys.stderr.write(f"{printable(text)}\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with a header in Ollama's layout, each line ended by a newline."""
    return columns([header, *rows])


def columns(
    rows: Sequence[Sequence[str]], *, indent: str = "", wrap_at: int = CELL_COLUMNS_MAX
) -> str:
    """Return *rows* as aligned columns; every cell is padded, also the last of a line."""
    wrapped = [[_wrap(cell, wrap_at) for cell in row] for row in rows]
    n_columns = max((len(row) for row in wrapped), default=0)
    widths = [
        max((cell_len(line) for row in wrapped if i < len(row) for line in row[i]), default=0)
        for i in range(n_columns)
    ]
    lines: list[str] = []
    for row in wrapped:
        cells = [*row, *([[""]] * (n_columns - len(row)))]
        for n in range(max(len(cell) for cell in cells)):
            texts = (cell[n] if n < len(cell) else "" for cell in cells)
            lines.append(indent + "".join(map(_pad, texts, widths)) + "\n")
    return "".join(lines)


def _wrap(cell: str, width: int) -> list[str]:
    one_line = " ".join(printable(cell).split("\n"))
    return textwrap.wrap(
        one_line, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    ) or [""]


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text)) + PADDING


def relative_time(when: datetime, now: datetime, *, zero: str = "Never") -> str:
    """Return *when* as seen from *now*: `2 days ago`, `4 minutes from now`, `Forever`."""
    if when.replace(tzinfo=None) == ZERO_TIME.replace(tzinfo=None):
        return zero
    ago = now - when
    if -ago > FOREVER_AFTER:
        return "Forever"
    if ago < timedelta(0):
        return f"{_span(-ago)} from now"
    return f"{_span(ago)} ago"


def _span(span: timedelta) -> str:
    """Return a length of time in its largest sensible unit, as Ollama words it."""
    seconds = int(span.total_seconds())
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(span.total_seconds() / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, hours_each, unit in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // hours_each} {unit}"
    return f"{hours // (24 * 365)} years"


def processor_share(size_bytes: int, size_vram_bytes: int) -> str:
    """Return where a running model lies, as `ps` words it: `100% GPU`, `25%/75% CPU/GPU`."""
    if size_vram_bytes == 0:
        return "100% CPU"
    if size_vram_bytes == size_bytes:
        return "100% GPU"
    if size_vram_bytes > size_bytes or size_bytes <= 0:
        return "Unknown"
    cpu_percent = int((size_bytes - size_vram_bytes) / size_bytes * 100 + 0.5)
    return f"{cpu_percent}%/{100 - cpu_percent}% CPU/GPU"
