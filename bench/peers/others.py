"""How much of the processor others took while something was measured.

A load average says what was; this says what disturbed. Threads that wait for each other in every
step, as an engine's do, lose far more than the share that is taken from them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.peers import proctree

_IDLE_FIELDS: Final = (3, 4)
"""Idle, and idle while a disk works, in the order of /proc/stat."""

_COUNTED: Final = 8
"""Fields up to steal; guests, behind it, are in user already."""


def busy_s(proc: Path = proctree.PROC) -> float:
    """Return the time that all processors together were not idle, a hypervisor's share included."""
    line = (proc / "stat").read_text(encoding="ascii").partition("\n")[0]
    ticks = [int(field) for field in line.split()[1 : 1 + _COUNTED]]
    return sum(t for n, t in enumerate(ticks) if n not in _IDLE_FIELDS) / proctree.TICKS_PER_S


class Watch:
    """Measures *share* over its block: 1 is all processors, taken by neither us nor *pids*."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self.share = 0.0

    def _own_s(self) -> dict[int, float]:
        found: dict[int, float] = {}
        for pid in (os.getpid(), *self._pids()):
            try:
                found[pid] = proctree.cpu_s(pid)
            except OSError:  # It ended.
                continue
        return found

    def __enter__(self) -> Self:
        self._own_before, self._busy_before = self._own_s(), busy_s()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        elapsed_s = time.perf_counter() - self._began
        own_s = sum(after - self._own_before.get(pid, 0.0) for pid, after in self._own_s().items())
        others_s = busy_s() - self._busy_before - own_s
        capacity_s = elapsed_s * (os.cpu_count() or 1)
        self.share = min(1.0, max(0.0, others_s / capacity_s))
