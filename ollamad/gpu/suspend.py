"""`SuspendWatch`: notices that the machine slept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SLEPT_S_MIN: Final = 1.0
"""A shorter sleep is taken for the jitter of reading two clocks one after the other."""


def system_slept_s() -> float:
    """Return how long the machine has slept since it was started.

    One of the kernel's clocks counts that time and the other does not.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class SuspendWatch:
    """Compares the time slept with what it was when last asked."""

    def __init__(self, slept_s: Callable[[], float] = system_slept_s) -> None:
        self._slept_s = slept_s
        self._known_s = slept_s()

    def slept(self) -> bool:
        """Return whether the machine slept since this was last asked."""
        before, self._known_s = self._known_s, self._slept_s()
        return self._known_s - before >= SLEPT_S_MIN
