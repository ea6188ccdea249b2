"""How much of a device may be planned with, by the configuration. Pure."""

from __future__ import annotations

import dataclasses

from ollamad.config import GpuConfig
from ollamad.gpu.devices import HOST, DeviceFacts


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceLimits:
    """What of a device's memory is ours to plan with."""

    capacity_bytes: int
    headroom_bytes: int
    """The part of the capacity that is never planned with."""


def limits_for(facts: DeviceFacts, config: GpuConfig) -> DeviceLimits:
    """Return the limits of the device that *facts* describes.

    1. Its capacity is its budget, where one is set, and what it has otherwise.
    2. Its headroom is its own, where one is set; a share of it is one of what the device has.
    3. Otherwise main memory has its own setting, and all GPUs share one.
    """
    names = [str(facts.device)] + ([str(facts.index)] if facts.index is not None else [])
    budget = config.budgets.find(*names)
    headroom = config.headroom.find(*names)
    if headroom is not None:
        headroom_bytes = headroom.of(facts.capacity_bytes)
    elif facts.device == HOST:
        headroom_bytes = config.host_headroom_bytes
    else:
        headroom_bytes = config.overhead_bytes
    return DeviceLimits(
        budget.of(facts.capacity_bytes) if budget is not None else facts.capacity_bytes,
        headroom_bytes,
    )
