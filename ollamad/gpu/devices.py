"""Devices that hold models: their facts, and readings of their memory.

Main memory is a device like any other, named `host`. Sizes are bytes.
"""

from __future__ import annotations

import dataclasses
from typing import Final, NewType

DeviceId = NewType("DeviceId", str)
"""A GPU's UUID, or `host`."""

HOST: Final = DeviceId("host")
"""Main memory."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What does not change about a device while the daemon runs."""

    device: DeviceId
    name: str
    capacity_bytes: int
    """All of its memory that we could ever use."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """How much of a device's memory was in use, by anybody, when it was read."""

    device: DeviceId
    used_bytes: int
