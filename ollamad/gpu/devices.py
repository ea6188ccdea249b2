"""Devices that hold models: their facts, their health, and readings of their memory.

Main memory is a device like any other, named `host`. Sizes are bytes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final, NewType

DeviceId = NewType("DeviceId", str)
"""A GPU's or MIG instance's UUID, or `host`."""

HOST: Final = DeviceId("host")
"""Main memory."""


class DeviceKind(enum.Enum):
    """What a device is."""

    HOST = "host"
    CUDA = "cuda"


class DeviceHealth(enum.Enum):
    """Whether a device is trusted with models."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """Something happened that may have been nothing: it keeps what it has and takes more."""
    QUARANTINED = "quarantined"
    """It takes nothing, and what runs on it is moved."""
    RECOVERING = "recovering"
    """It looks well again and is watched for a while before it is trusted."""


USABLE: Final = frozenset({DeviceHealth.HEALTHY, DeviceHealth.SUSPECT})
"""Health in which a device takes models."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What does not change about a device while the daemon runs."""

    device: DeviceId
    name: str
    capacity_bytes: int
    """All of its memory that we could ever use."""
    kind: DeviceKind = DeviceKind.HOST
    index: int | None = None
    """Its number as the driver's tools show it; a MIG instance has its GPU's. `None` for main
    memory."""
    parent: DeviceId | None = None
    """The GPU that a MIG instance is a part of."""
    pci_bus_id: str = ""
    """Where it is plugged in, such as `00000000:17:00.0`; of a MIG instance, its GPU's."""
    minor: int | None = None
    """The number of its device node, `/dev/nvidia<minor>`; of a MIG instance, its GPU's."""
    compute_capability: tuple[int, int] | None = None
    """What CUDA code it runs, such as (9, 0)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """How much of a device's memory was in use, by anybody, when it was read."""

    device: DeviceId
    used_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeenDevice:
    """One device as it was last seen. A device that is lost is not seen."""

    facts: DeviceFacts
    used_bytes: int
    """Memory in use, by anybody."""
    by_process: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Memory by process id, where the driver tells it."""
    health: DeviceHealth = DeviceHealth.HEALTHY
    why: str = ""
    """What made it less than healthy."""
