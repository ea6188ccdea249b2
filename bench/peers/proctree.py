"""What a process and its descendants cost, read from /proc: CPU, memory, wake-ups."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int, proc: Path = PROC) -> float:
    """Return the CPU time of *pid* alone, user and system, without its children's."""
    total_ns = 0
    for schedstat in proc.glob(f"{pid}/task/*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # A thread that just ended.
            total_ns += int(schedstat.read_text(encoding="ascii").split()[0])
    if total_ns:
        return total_ns / 1e9
    # A kernel without schedstat counts in ticks.
    fields = (proc / str(pid) / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


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


def wakeups(pids: list[int], proc: Path = PROC) -> int:
    """Return how often all threads of *pids* have gone to sleep, and so were woken."""
    total = 0
    for pid in pids:
        for status in proc.glob(f"{pid}/task/*/status"):
            with contextlib.suppress(OSError):
                for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        total += int(line.split()[1])
    return total
