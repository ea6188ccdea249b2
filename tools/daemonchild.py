"""The daemon as a child of a tool: started in a group of its own, listened to, and ended.

Owns the process and the last lines of its log. What is asked of the daemon is firstlight's.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

LINES_KEPT: Final = 200
LINE_CHARACTERS_MAX: Final = 4096
KILL_PATIENCE_S: Final = 10.0
DRAIN_PATIENCE_S: Final = 5.0

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DaemonChild:
    """A running `python -m ollamad serve`.

    It has a process group of its own, so that Ctrl-C reaches it once, from us, and not a second
    time from the terminal: the second one would cut its drain short.
    """

    def __init__(self, environ: Mapping[str, str], cwd: Path | None = None) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=LINES_KEPT)
        self._lock = threading.Lock()
        self._echo: Callable[[str], object] | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ollamad", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=cwd,
            process_group=0,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name="daemon log", daemon=True)
        self._reader.start()

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def last_lines(self, n_lines: int) -> list[str]:
        """Return the last lines of its log."""
        if self.status is not None:
            self._reader.join(DRAIN_PATIENCE_S)
        with self._lock:
            return list(self._lines)[-n_lines:]

    def show_log(self, write: Callable[[str], object]) -> None:
        """Hand every further line of its log to *write*."""
        with self._lock:
            self._echo = write

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return its exit status, or None if it still runs after *timeout_s*."""
        try:
            status = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(DRAIN_PATIENCE_S)
        return status

    def end(self) -> None:
        """Leave no process behind: ask if it still runs, then kill its group."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.status is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self.wait(KILL_PATIENCE_S)

    @contextlib.contextmanager
    def signals_forwarded(self) -> Iterator[list[int]]:
        """Pass the signals that end us on to the daemon; yield those that came."""
        came: list[int] = []

        def forward(number: int, _frame: FrameType | None) -> None:
            came.append(number)
            self.signal(number)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield came
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("the child was started with a pipe")
        while line := self._process.stdout.readline(LINE_CHARACTERS_MAX):
            with self._lock:
                self._lines.append(line.rstrip("\n"))
                if self._echo is not None:
                    with contextlib.suppress(OSError):  # Our own reader left; keep the daemon.
                        self._echo(line if line.endswith("\n") else f"{line}\n")


def shell_status(status: int) -> int:
    """Return an exit status as a shell tells it: 128 and the signal's number if one ended it."""
    return status if status >= 0 else 128 - status
