"""What an idle daemon costs: wake-ups per second and memory, for each process of its tree.

    .venv/bin/python -m bench.idle PID [--seconds 20] [--threads] [--json]

A wake-up is a voluntary context switch: a thread that went to sleep, and so had been woken. They
are what keeps a laptop's processor from its deep sleep. Reads /proc; look as the daemon's user or
as root, else the memory of its processes is not shown. An idle tree should stay below 2 a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Final

import psutil

MIB: Final = 1 << 20
_SWITCHES: Final = "voluntary_ctxt_switches"

Wakeups = dict[tuple[int, int], tuple[str, int]]
"""By process and thread: the thread's name and its wake-ups so far."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One process."""

    pid: int
    name: str
    wakeups_per_s: float
    rss_bytes: int
    pss_bytes: int
    """Its share of what it maps together with others; 0 if we may not look."""
    threads: dict[str, float]
    """Wake-ups per second of each thread that had any."""


def tree(pid: int) -> list[psutil.Process]:
    """Return the process and all that descend from it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def wakeups_of(processes: list[psutil.Process]) -> Wakeups:
    """Return the wake-ups of every thread that lives."""
    found: Wakeups = {}
    for process in processes:
        for task in Path(f"/proc/{process.pid}/task").glob("[0-9]*"):
            try:
                lines = (task / "status").read_text().splitlines()
            except OSError:  # It has ended meanwhile.
                continue
            fields = dict(line.split(":", 1) for line in lines)
            name = fields["Name"].strip()
            found[process.pid, int(task.name)] = (name, int(fields[_SWITCHES]))
    return found


def measure(pid: int, seconds: float) -> list[Row]:
    """Watch the tree of *pid* for so long and return a row for each process, the daemon first."""
    before = wakeups_of(tree(pid))
    time.sleep(seconds)
    processes = tree(pid)  # A thread that was not there before counts with all it did.
    after = wakeups_of(processes)
    rows = []
    for process in processes:
        threads = {
            f"{name} {thread}": (count - before.get((owner, thread), (name, 0))[1]) / seconds
            for (owner, thread), (name, count) in after.items()
            if owner == process.pid
        }
        rows.append(
            Row(
                pid=process.pid,
                name=process.name(),
                wakeups_per_s=sum(threads.values()),
                rss_bytes=process.memory_info().rss,
                pss_bytes=pss_bytes(process.pid),
                threads={name: rate for name, rate in threads.items() if rate},
            )
        )
    return rows


def pss_bytes(pid: int) -> int:
    """Return the proportional share of a process in memory; 0 if we may not look."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def print_table(rows: list[Row], *, with_threads: bool) -> None:
    """Print the rows and their sum for people."""
    print(f"{'PID':>8}  {'process':<20}{'wake-ups/s':>11}{'RSS MiB':>10}{'PSS MiB':>10}")
    for row in rows:
        print_row(str(row.pid), row.name, row)
        for name, rate in row.threads.items() if with_threads else ():
            print(f"{'':>8}    {name:<18}{rate:>11.2f}")
    total = Row(
        pid=0,
        name="",
        wakeups_per_s=sum(row.wakeups_per_s for row in rows),
        rss_bytes=sum(row.rss_bytes for row in rows),
        pss_bytes=sum(row.pss_bytes for row in rows),
        threads={},
    )
    print_row("", "together", total)


def print_row(pid: str, name: str, row: Row) -> None:
    """Print one line of the table."""
    memory = f"{row.rss_bytes / MIB:>10.1f}{row.pss_bytes / MIB:>10.1f}"
    print(f"{pid:>8}  {name:<20}{row.wakeups_per_s:>11.2f}{memory}")


def main(arguments: list[str]) -> int:
    """Print what the daemon with the given pid costs while it idles."""
    parser = argparse.ArgumentParser(prog="bench.idle", description="What an idle daemon costs.")
    parser.add_argument("pid", type=int, help="the daemon's process id")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch")
    parser.add_argument("--threads", action="store_true", help="show which threads wake up")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        rows = measure(given.pid, given.seconds)
    except psutil.NoSuchProcess:
        print(f"there is no process {given.pid}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
    else:
        print_table(rows, with_threads=given.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
