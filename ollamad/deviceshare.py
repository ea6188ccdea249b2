"""`DeviceShare`: a part of a device's memory, in bytes or in percent of all it has."""

from __future__ import annotations

import dataclasses
from typing import Final

PERCENT_MAX: Final = 100.0


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceShare:
    """So many bytes, or so many percent if that is given."""

    n_bytes: int = 0
    percent: float | None = None

    def of(self, capacity_bytes: int) -> int:
        """Return the bytes it is of *capacity_bytes*, and never more than those."""
        if self.percent is not None:
            return int(capacity_bytes * self.percent / PERCENT_MAX)
        return min(self.n_bytes, capacity_bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceShares:
    """Shares by device: its UUID, its index, or `host`."""

    by_name: tuple[tuple[str, DeviceShare], ...] = ()

    def find(self, *names: str) -> DeviceShare | None:
        """Return the share of the device that is called by one of *names*; the first one counts."""
        shares = dict(self.by_name)
        return next((shares[name] for name in names if name in shares), None)
