"""What is going on, on stderr: moving bars and spinners at a terminal, plain lines elsewhere.

Results never pass through here, so a pipe receives only them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from ollamactl.render import note, printable
from ollamad.units import format_bytes_decimal, format_duration

ROWS_MAX: Final = 24
"""Rows kept on the screen; older ones go, however many things a daemon reports."""
BAR_COLUMNS: Final = 20


@contextlib.contextmanager
def waiting(text: str = "") -> Iterator[Waiting]:
    """Show a spinner at a terminal until `Waiting.over` is called, or the block ends."""
    spinner = Waiting(text)
    try:
        yield spinner
    finally:
        spinner.over()


class Waiting:
    """A spinner that can be ended from inside its block, when the first output comes."""

    def __init__(self, text: str) -> None:
        self._status = None
        if sys.stderr.isatty():
            # Not rich's own markup: a model name may contain square brackets.
            self._status = Console(stderr=True).status(Text(printable(text)))
            self._status.start()

    def over(self) -> None:
        """Erase the spinner. Does nothing the second time."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class Report:
    """Shows the steps of a longer work. Use as a context manager."""

    def __init__(self) -> None:
        self._screen = _screen() if sys.stderr.isatty() else None
        self._rows: dict[str, TaskID] = {}
        self._step = ""

    def __enter__(self) -> Self:
        if self._screen is not None:
            self._screen.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._screen is not None:
            self._finish_step()
            self._screen.stop()

    def step(self, text: str) -> None:
        """Say that *text* is being done now; whatever was said before is done."""
        if text == self._step:
            return
        self._finish_step()
        self._step = text
        self._row(text, text, total=None)

    def bar(self, key: str, text: str, *, completed: int, total: int) -> None:
        """Say how much of *total* bytes of *key* is done."""
        if self._screen is None and key in self._rows:
            return
        self._finish_step()
        row = self._row(key, text, total=total)
        if self._screen is not None:
            self._screen.update(row, completed=min(completed, total))

    def _row(self, key: str, text: str, *, total: int | None) -> TaskID:
        if key in self._rows:
            return self._rows[key]
        if len(self._rows) >= ROWS_MAX:
            oldest = next(iter(self._rows))
            row = self._rows.pop(oldest)
            if self._screen is not None:
                self._screen.remove_task(row)
        if self._screen is None:
            note(text)
            self._rows[key] = TaskID(0)
        else:
            self._rows[key] = self._screen.add_task(
                printable(text), total=total, counts=total is not None
            )
        return self._rows[key]

    def _finish_step(self) -> None:
        if self._screen is not None and self._step in self._rows:
            self._screen.update(self._rows[self._step], total=1, completed=1)
        self._step = ""


class _Amounts(ProgressColumn):
    """`45% ▕████      ▏ 1.2 GB/2.0 GB   35 MB/s     22s`, for the rows that count bytes."""

    def render(self, task: Task) -> Text:
        """Return the row's bar and numbers; nothing for a step without any."""
        if not task.fields["counts"] or task.total is None:
            return Text()
        total = format_bytes_decimal(int(task.total))
        done = "█" * round(BAR_COLUMNS * task.completed / max(task.total, 1))
        text = f"{task.percentage:3.0f}% ▕{done:<{BAR_COLUMNS}}▏ "
        if task.finished:
            return Text(text + total)
        text += f"{format_bytes_decimal(int(task.completed))}/{total}"
        if task.speed:
            left_s = task.time_remaining or 0
            text += f"   {format_bytes_decimal(int(task.speed))}/s   {format_duration(left_s)}"
        return Text(text)


def _screen() -> Progress:
    return Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        _Amounts(),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
