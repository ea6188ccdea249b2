"""Main memory and cores as the daemon may use them: the machine's, or the cgroup's if smaller.

The only importer of psutil. Reads are a few files of /proc and /sys: microseconds, never hanging.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil

from ollamad.gpu.devices import HOST, DeviceFacts

_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_CPU_MAX_PARTS: Final = 2


class HostMemory:
    """Reads main memory. Limits of cgroup v2 count at every level above this process."""

    def __init__(self, *, memory_max_bytes: int = 0, cgroup: Path | None = None) -> None:
        self._memory_max_bytes = memory_max_bytes
        self._cgroups = _with_parents(cgroup if cgroup is not None else own_cgroup())

    def facts(self) -> DeviceFacts:
        """Return the device `host`."""
        limits = [psutil.virtual_memory().total]
        limits += [n for group in self._cgroups if (n := _read_number(group / "memory.max"))]
        if self._memory_max_bytes:
            limits.append(self._memory_max_bytes)
        return DeviceFacts(device=HOST, name="main memory", capacity_bytes=min(limits))

    def used_bytes(self, capacity_bytes: int) -> int:
        """Return how much of the capacity is in use: of the tightest of machine and cgroups."""
        return max(capacity_bytes - self.available_bytes(), 0)

    def available_bytes(self) -> int:
        """Return what could be taken now without pushing others out. May be below 0 in a cgroup."""
        available = [psutil.virtual_memory().available]
        for group in self._cgroups:
            limit = _read_number(group / "memory.max")
            current = _read_number(group / "memory.current")
            if limit is not None and current is not None:
                # Page cache is given back on demand, so it is not in use.
                available.append(limit - current + _cached_bytes(group))
        return min(available)


def own_cgroup() -> Path | None:
    """Return this process's folder in the unified hierarchy, or `None` without one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            return _CGROUP_ROOT / line[3:].lstrip("/")
    return None


def n_cores() -> int:
    """Return physical cores that this process may use: affinity and CPU quota count."""
    logical = len(os.sched_getaffinity(0))
    physical = psutil.cpu_count(logical=False) or logical
    threads_per_core = max((psutil.cpu_count(logical=True) or logical) // physical, 1)
    usable = max(logical // threads_per_core, 1)
    for group in _with_parents(own_cgroup()):
        quota = _cpu_quota(group)
        if quota is not None:
            usable = min(usable, max(int(quota), 1))
    return usable


def _with_parents(group: Path | None) -> tuple[Path, ...]:
    if group is None:
        return ()
    return tuple(
        folder for folder in (group, *group.parents) if folder.is_relative_to(_CGROUP_ROOT)
    ) or (group,)


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached_bytes(group: Path) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(maxsplit=1) for line in lines)
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))


def _cpu_quota(group: Path) -> float | None:
    try:
        parts = (group / "cpu.max").read_text().split()
    except OSError:
        return None
    if len(parts) != _CPU_MAX_PARTS or parts[0] == "max":
        return None
    return int(parts[0]) / int(parts[1])
