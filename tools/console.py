"""Running a long command with its output in a log and its progress on one line.

Owns what the reader sees while a child works, and that the child never outlives us. What the
lines of a child mean is told by the caller's `parse`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, BinaryIO, Final

from tools.machine import SetupError

TICK_S: Final = 0.5
PLAIN_PERIOD_S: Final = 30.0
"""How often a line is printed where there is no terminal: seldom enough for a log file."""

READ_BYTES: Final = 1 << 16
LINE_BYTES_MAX: Final = 1 << 16
LOG_BYTES_MAX: Final = 256 << 20
LINES_SHOWN: Final = 20
LINES_KEPT: Final = 2000
CHILD_PATIENCE_S: Final = 5.0

_NINJA: Final = re.compile(rb"^\s*\[(\d{1,6})/(\d{1,6})\]")
_PIP_EPILOGUE: Final = "note: This error originates from a subprocess"
_PIP_FRAME: Final = ("error: subprocess-exited-with-error", "[end of output]", "\u00d7", "│", "╰")

Parse = Callable[[bytes], "float | None"]
"""From one line of output to the fraction done, or None if the line does not tell."""


def ninja_fraction(line: bytes) -> float | None:
    """Return the fraction that a line of ninja tells (`[17/120] c++ ...`)."""
    match = _NINJA.match(line)
    if match is None:
        return None
    done, total = int(match[1]), int(match[2])
    return min(1.0, done / total) if total else None


def counter(prefixes: tuple[bytes, ...], total: int) -> Parse:
    """Return a parser that counts the lines starting with one of *prefixes*."""
    seen = 0

    def parse(line: bytes) -> float | None:
        nonlocal seen
        if not line.startswith(prefixes):
            return None
        seen += 1
        return min(1.0, seen / max(1, total))

    return parse


def duration(seconds: float) -> str:
    """Return *seconds* as a person says them: `42 s`, `3 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Progress:
    """One line about what is going on: live on a terminal, now and then elsewhere."""

    def __init__(self, stream: IO[str], *, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._is_live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._title = ""
        self._began = self._printed = now()
        self._fraction: float | None = None
        self._drawn = ""

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._wipe()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def begin(self, title: str) -> None:
        """Start a stage; its line is repeated until `end`."""
        self._title, self._fraction = title, None
        self._began = self._printed = self._now()
        if self._is_live:
            self._draw()
        else:
            self.say(f"{title} ...")

    def update(self, fraction: float | None = None) -> None:
        """Tell the fraction done, or only that time passed."""
        if fraction is not None:
            self._fraction = fraction
        if self._is_live:
            self._draw()
        elif self._now() - self._printed >= PLAIN_PERIOD_S:
            self._printed = self._now()
            self.say(self._line())

    def end(self) -> None:
        """Finish the stage and leave a line that says how long it took."""
        self.say(f"{self._title}: done in {duration(self._now() - self._began)}")

    def abandon(self) -> None:
        """Take the live line away, so that an error starts on a line of its own."""
        self._wipe()
        self._stream.flush()

    def _line(self) -> str:
        percent = "" if self._fraction is None else f" {self._fraction:.0%},"
        return f"{self._title}:{percent} {duration(self._now() - self._began)}"

    def _draw(self) -> None:
        line = self._line()
        if line != self._drawn:
            self._stream.write(f"\r\x1b[K{line}")
            self._stream.flush()
            self._drawn = line

    def _wipe(self) -> None:
        if self._is_live and self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = ""


def telling_lines(lines: Sequence[str], n_lines: int = LINES_SHOWN) -> list[str]:
    """Return the last *n_lines* that tell why a build failed.

    pip ends with a dozen lines of its own about the failure of something else; what that
    something said stands before them.
    """
    ends = [i for i, line in enumerate(lines) if line.strip().startswith(_PIP_EPILOGUE)]
    before = lines[: ends[-1]] if ends else lines
    told = [line for line in before if line.strip() and not line.strip().startswith(_PIP_FRAME)]
    return told[-n_lines:]


@contextlib.contextmanager
def endings_raise() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that `finally` ends our children."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Runner:
    """Runs the commands of a set-up: quietly, logged, bounded in time."""

    def __init__(self, progress: Progress, log: Path) -> None:
        self.progress = progress
        self._log = log

    def run(
        self,
        title: str,
        command: Sequence[str],
        *,
        timeout_s: float,
        parse: Parse | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Run *command* to its end. Raises SetupError with the last lines of what it said."""
        self.progress.begin(title)
        tail: collections.deque[str] = collections.deque(maxlen=LINES_KEPT)
        with self._log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=None if environ is None else dict(environ),
                    cwd=cwd,
                    start_new_session=True,  # So that its compilers can be ended with it.
                )
            except OSError as exc:
                raise SetupError(f"{title}: cannot start {command[0]}: {exc}") from exc
            try:
                in_time = self._follow(process, log, tail, parse, time.monotonic() + timeout_s)
            finally:
                _end_group(process)
        if not in_time:
            raise SetupError(f"{title}: not finished after {duration(timeout_s)}.{self._hint()}")
        if process.returncode != 0:
            shown = "\n".join(f"  {line}" for line in telling_lines(list(tail)))
            raise SetupError(f"{title}: failed. It said last:\n{shown}\n{self._hint().strip()}")
        self.progress.end()

    def _hint(self) -> str:
        return f" The full log: {self._log}"

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        log: BinaryIO,
        tail: collections.deque[str],
        parse: Parse | None,
        deadline: float,
    ) -> bool:
        """Copy the output to the log until it ends; return whether that was in time."""
        if process.stdout is None:
            raise AssertionError("the child was started with a pipe")
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(TICK_S):
                    self.progress.update()
                    continue
                data = os.read(process.stdout.fileno(), READ_BYTES)
                if not data:
                    break
                if log.tell() < LOG_BYTES_MAX:
                    log.write(data)
                    log.flush()
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-LINE_BYTES_MAX:]
                tail.extend(_text(line) for line in lines)
                told = [parse(line) for line in lines] if parse else []
                known = [fraction for fraction in told if fraction is not None]
                self.progress.update(known[-1] if known else None)
        tail.append(_text(rest))
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True


def _text(line: bytes) -> str:
    # A log line may hold anything; what is shown must not move the reader's cursor.
    decoded = line.decode("utf-8", "replace").rstrip()
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in decoded)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the child and everything it started, if any of it is still there."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=CHILD_PATIENCE_S)
    if process.stdout is not None:
        process.stdout.close()
