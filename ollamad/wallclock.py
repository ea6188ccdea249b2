"""Calendar time behind an interface, so that tests can fix it. Durations come from Trio's clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class WallClock(Protocol):
    """Tells the calendar time."""

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""
        ...


class SystemWallClock:
    """The system's calendar time."""

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""
        return datetime.now(UTC)
