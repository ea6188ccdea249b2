"""A runner's output into our log; the last lines are kept for crash reports."""

from __future__ import annotations

import logging
import signal
from collections import deque
from typing import Final

import trio

LINE_BYTES_MAX: Final = 8 << 10
"""A longer line is cut: a runner gone wild must not fill the log's memory."""

_LEVELS: Final = {
    "D": logging.DEBUG,
    "I": logging.DEBUG,
    "W": logging.WARNING,
    "E": logging.ERROR,
}
"""The worker marks each line by a letter and a space. What a library finds informative about
loading is for developers here, hence `I` is debug."""

_log = logging.getLogger(__name__)


class RunnerLog:
    """Reads a runner's output to its end."""

    def __init__(self, label: str, *, lines_kept: int) -> None:
        self._label = label
        self._lines: deque[str] = deque(maxlen=lines_kept)
        self._errors: deque[str] = deque(maxlen=8)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The newest lines, oldest first."""
        return tuple(self._lines)

    @property
    def last_error(self) -> str:
        """The newest line that was marked as an error, or the newest line at all."""
        if self._errors:
            return self._errors[-1]
        return self._lines[-1] if self._lines else ""

    async def read(self, output: trio.abc.ReceiveStream) -> None:
        """Log line by line until the output ends."""
        buffer = bytearray()
        async with output:
            try:
                async for chunk in output:
                    buffer += chunk
                    *lines, rest = buffer.split(b"\n")
                    for line in lines:
                        self._take(line)
                    buffer = bytearray(rest[:LINE_BYTES_MAX])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # The pipe of a killed process: what it said is all there is.
        if buffer:
            self._take(buffer)

    def _take(self, line: bytes | bytearray) -> None:
        text = bytes(line[:LINE_BYTES_MAX]).decode(errors="replace").rstrip()
        if not text:
            return
        mark, space, rest = text.partition(" ")
        level = _LEVELS.get(mark) if space else None
        if level is None:
            # Not the worker's own words: a traceback or a library that writes by itself.
            level, rest = logging.WARNING, text
        self._lines.append(rest)
        if level >= logging.ERROR:
            self._errors.append(rest)
        _log.log(level, "%s: %s", self._label, rest)

    def how_it_ended(self, status: int) -> str:
        """Return what an exit status says, with the last complaint."""
        if status < 0:
            try:
                how = f"killed by {signal.Signals(-status).name}"
            except ValueError:
                how = f"killed by signal {-status}"
        else:
            how = f"exit status {status}"
        return f"{how}: {self.last_error}" if self.last_error else how

    def note(self, text: str) -> None:
        """Add a line of the daemon's own about this runner."""
        _log.warning("%s: %s", self._label, text)
