from __future__ import annotations

from typing import Any

import pytest

from ollamad.config import GpuConfig
from ollamad.deviceshare import DeviceShare, DeviceShares
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceId, DeviceKind
from ollamad.gpu.limits import DeviceLimits, limits_for
from ollamad.units import GIB, MIB

HOST_FACTS = DeviceFacts(device=HOST, name="main memory", capacity_bytes=64 * GIB)
GPU_FACTS = DeviceFacts(
    device=DeviceId("GPU-a"),
    name="a GPU",
    capacity_bytes=24 * GIB,
    kind=DeviceKind.CUDA,
    index=0,
)


def shares(**by_name: DeviceShare) -> DeviceShares:
    return DeviceShares(tuple((name.replace("_", "-"), share) for name, share in by_name.items()))


HALF = DeviceShare(percent=50)


@pytest.mark.parametrize(
    ("facts", "settings", "limits"),
    [
        (HOST_FACTS, {}, DeviceLimits(64 * GIB, 512 * MIB)),
        (GPU_FACTS, {}, DeviceLimits(24 * GIB, 0)),
        (GPU_FACTS, {"overhead_bytes": GIB}, DeviceLimits(24 * GIB, GIB)),
        (HOST_FACTS, {"budgets": shares(host=HALF)}, DeviceLimits(32 * GIB, 512 * MIB)),
        (GPU_FACTS, {"budgets": shares(GPU_a=DeviceShare(GIB))}, DeviceLimits(GIB, 0)),
        (GPU_FACTS, {"budgets": shares(GPU_a=DeviceShare(99 * GIB))}, DeviceLimits(24 * GIB, 0)),
        (GPU_FACTS, {"headroom": DeviceShares((("0", HALF),))}, DeviceLimits(24 * GIB, 12 * GIB)),
        (
            GPU_FACTS,
            {"headroom": shares(GPU_a=DeviceShare(0)), "overhead_bytes": GIB},
            DeviceLimits(24 * GIB, 0),
        ),
        (GPU_FACTS, {"budgets": DeviceShares((("1", HALF),))}, DeviceLimits(24 * GIB, 0)),
    ],
    ids=[
        "host",
        "gpu",
        "all-gpus",
        "percent",
        "bytes",
        "more-than-there-is",
        "by-index",
        "own-headroom-goes-first",
        "another-one",
    ],
)
def test_a_device_has_the_budget_and_headroom_that_are_set_for_it(
    facts: DeviceFacts, settings: dict[str, Any], limits: DeviceLimits
) -> None:
    assert limits_for(facts, GpuConfig(**settings)) == limits
