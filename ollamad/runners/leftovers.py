"""Runners of an earlier life of the daemon: found and ended at the start.

A runner ends when its socket does, so a killed daemon leaves none; but one that was stopped
(SIGSTOP, a frozen cgroup, a debugger) does not notice. Such a one is recognised by its own
arguments, which name the process of the daemon that it belonged to: pid and start time, which
together no other process of this boot has. There is no file that could be stale, lost or forged by
somebody else, and each daemon knows its own runners from those of another one beside it.

It is ended only if all of this holds: it is a runner of our user in our pid namespace, its daemon
is gone, and its parent is not that daemon. Facts are read and the signal is sent over one pidfd,
so a number that was given to somebody else in between is not hit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LEFTOVERS_MAX: Final = 64
"""Runners ended at one start. More are left to the next one: something else is wrong then."""
PATIENCE_S: Final = 5.0
"""How long all of them together may take to be gone after SIGKILL."""
ARGUMENTS_BYTES_MAX: Final = 16 << 10
"""What is read of a process's arguments."""

_PROC: Final = Path("/proc")
_MARK_OPTION: Final = b"--daemon"
_SHAPE: Final = [b"-P", b"-m", b"ollamad.runners.worker"]
"""The arguments of every runner after the interpreter's own path."""
_PPID, _START_TIME = 1, 19
"""Fields of /proc/PID/stat after the name."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What decides whether a process is a leftover."""

    arguments: tuple[bytes, ...]
    parent: int
    uid: int
    pid_namespace: str


def daemon_mark() -> str:
    """Return the argument by which this daemon's runners are known: its pid and start time."""
    pid = os.getpid()
    return f"{pid}:{start_time(pid)}"


def start_time(pid: int) -> int | None:
    """Return when a process was started, in ticks since the boot; `None` if there is none."""
    fields = _stat_fields(pid)
    return int(fields[_START_TIME]) if fields else None


def mark_of(arguments: tuple[bytes, ...]) -> tuple[int, int] | None:
    """Return the pid and start time of the daemon that a runner belongs to.

    `None` for what is no runner, or does not say.
    """
    if list(arguments[1:4]) != _SHAPE or _MARK_OPTION not in arguments[:-1]:
        return None
    pid, _, ticks = arguments[arguments.index(_MARK_OPTION) + 1].partition(b":")
    return (int(pid), int(ticks)) if pid.isdigit() and ticks.isdigit() else None


def is_leftover(facts: ProcessFacts, ours: ProcessFacts) -> bool:
    """*facts* are a runner's whose daemon is gone. *ours* are this process's."""
    mark = mark_of(facts.arguments)
    if mark is None or (facts.uid, facts.pid_namespace) != (ours.uid, ours.pid_namespace):
        return False
    daemon, started = mark
    return facts.parent != daemon and start_time(daemon) != started


def end_leftovers() -> int:
    """End the runners that a dead daemon has left and return how many; log each.

    Blocks for PATIENCE_S at most: to be called from a thread.
    """
    ended = dict(_kill_all())
    until = time.monotonic() + PATIENCE_S
    for pid, descriptor in ended.items():
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        is_gone = bool(poll.poll(max(until - time.monotonic(), 0) * 1000))
        os.close(descriptor)
        if is_gone:
            _log.warning(f"ended process {pid}, a runner of a daemon that is gone")
        else:
            _log.error(f"process {pid}, a runner of a daemon that is gone, does not end")
    return len(ended)


def _kill_all() -> Iterator[tuple[int, int]]:
    """Kill each leftover; yield its pid and a pidfd."""
    ours = _facts(os.getpid())
    if ours is None:
        return  # No /proc: nothing can be known.
    n_killed = 0
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and n_killed < LEFTOVERS_MAX:
            with contextlib.suppress(OSError):  # It ended meanwhile, or is not ours to signal.
                descriptor = _kill(int(entry.name), ours)
                if descriptor is not None:
                    n_killed += 1
                    yield int(entry.name), descriptor


def _kill(pid: int, ours: ProcessFacts) -> int | None:
    """Kill the process if it is a leftover, and return its pidfd then. Raises OSError."""
    with contextlib.ExitStack() as closing:
        descriptor = os.pidfd_open(pid)
        closing.callback(os.close, descriptor)
        facts = _facts(pid)
        if facts is None or not is_leftover(facts, ours):
            return None
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        closing.pop_all()
    return descriptor


def _facts(pid: int) -> ProcessFacts | None:
    folder = _PROC / str(pid)
    try:
        with (folder / "cmdline").open("rb") as file:
            arguments = tuple(file.read(ARGUMENTS_BYTES_MAX).split(b"\0"))
        uid = folder.stat().st_uid
        namespace = os.readlink(folder / "ns" / "pid")  # noqa: PTH115 - it is no path
    except OSError:
        return None
    fields = _stat_fields(pid)
    if not fields:
        return None
    return ProcessFacts(arguments, int(fields[_PPID]), uid, namespace)


def _stat_fields(pid: int) -> list[str]:
    """Return the fields after the name, which may itself hold blanks and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
