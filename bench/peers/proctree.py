"""What a process and its descendants cost, read from /proc: CPU, memory, wake-ups."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

_SCHED_CLOCK: Final = 2
"""The kernel's number for a process's CPU clock, below its id: see clock_getcpuclockid(3)."""


def cpu_s(pid: int) -> float:
    """Return the CPU time of *pid* alone, user and system, ended threads included.

    Raises OSError if it is gone. Its clock counts in nanoseconds where /proc counts in hundredths.
    """
    return time.clock_gettime((~pid << 3) | _SCHED_CLOCK)


def tree(pid: int, proc: Path = PROC) -> list[int]:
    """Return *pid* and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:  # It grows while it is walked.
        found += children.get(each, [])
    return found


def memory_bytes(pids: list[int], proc: Path = PROC) -> dict[str, int]:
    """Return the resident and the proportional memory of *pids*, each in sum."""
    sums = {"Rss": 0, "Pss": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (proc / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name in sums:
                    sums[name] += int(value.split()[0]) * 1024
    return sums


def wakeups(pids: list[int], proc: Path = PROC) -> dict[str, int]:
    """Return how often each thread of *pids* has gone to sleep, and so was woken."""
    found: dict[str, int] = {}
    for pid in pids:
        for status in proc.glob(f"{pid}/task/*/status"):
            with contextlib.suppress(OSError):
                for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        found[status.parent.name] = int(line.split()[1])
    return found


def grown(before: dict[str, int], after: dict[str, int]) -> int:
    """Return by how much the counts have grown; threads that ended take nothing away."""
    return sum(count - before.get(thread, 0) for thread, count in after.items())
