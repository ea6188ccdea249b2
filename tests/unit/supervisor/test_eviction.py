from __future__ import annotations

import pytest

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.states import RunnerState
from ollamad.supervisor.events import RunnerId
from ollamad.supervisor.eviction import choose_victims
from ollamad.supervisor.residents import Resident
from tests.values import a_subject

GPU = DeviceId("GPU-1")


def idle(number: int, n_bytes: int, since: float, *, device: DeviceId = HOST) -> Resident:
    """Return a runner of *n_bytes* that nobody has used *since*."""
    return Resident(
        runner=RunnerId(number),
        subject=a_subject(),
        plan=LoadPlan(model_path="/models/x", n_ctx=64, n_slots=1, n_batch=8),
        demand=MemoryDemand(
            weights_bytes=n_bytes, kv_cache_bytes=0, compute_bytes=0, process_bytes=0
        ),
        placement=Placement(amounts={device: n_bytes}),
        keep_alive_s=300,
        state=RunnerState.READY,
        idle_since=since,
    )


def a_budget(residents: list[Resident], *, free: int) -> Budget:
    """Return a budget with *free* bytes of each device besides what the runners hold."""
    devices = [
        DeviceFacts(device=device, name=device, capacity_bytes=1000 + free)
        for device in (HOST, GPU)
    ]
    budget = Budget(devices)
    for device in (HOST, GPU):
        held = [r for r in residents if device in r.placement.amounts]
        for resident in held:
            budget.reserve(resident.runner, resident.placement.amounts)
        budget.reserve("busy", {device: 1000 - sum(r.held_bytes for r in held)})
    return budget


@pytest.mark.parametrize(
    ("residents", "free", "needed", "victims"),
    [
        ([idle(1, 10, 5)], 20, 20, []),
        ([], 20, 21, None),
        ([idle(1, 10, 5)], 0, 10, [1]),
        ([idle(1, 10, 5)], 0, 11, None),
        ([idle(1, 10, 9), idle(2, 10, 5)], 0, 10, [2]),
        ([idle(2, 10, 5), idle(1, 10, 5)], 0, 10, [1]),
        ([idle(1, 10, 5), idle(2, 10, 9)], 5, 25, [1, 2]),
        ([idle(1, 5, 1), idle(2, 50, 2), idle(3, 50, 3)], 0, 50, [2]),
        ([idle(1, 5, 1), idle(2, 45, 2), idle(3, 50, 3)], 0, 50, [1, 2]),
        ([idle(1, 50, 1, device=GPU), idle(2, 50, 2)], 0, 50, [2]),
        ([idle(1, 50, 1, device=GPU)], 0, 50, None),
    ],
    ids=[
        "it-fits-anyway", "nobody-to-evict", "exactly-enough", "not-enough", "longest-idle-first",
        "equally-idle-the-older-runner", "several", "nobody-in-vain", "by-age-not-by-number",
        "only-who-holds-the-device", "nobody-holds-the-device",
    ],
)  # fmt: skip
def test_idle_runners_make_room(
    residents: list[Resident], free: int, needed: int, victims: list[int] | None
) -> None:
    chosen = choose_victims(residents, {HOST: needed}, a_budget(residents, free=free))

    assert (chosen if chosen is None else [r.runner for r in chosen]) == victims


def test_every_device_of_a_demand_must_get_its_room() -> None:
    residents = [idle(1, 10, 1), idle(2, 10, 2, device=GPU), idle(3, 10, 3)]
    budget = a_budget(residents, free=0)

    chosen = choose_victims(residents, {HOST: 10, GPU: 10}, budget)

    assert chosen is not None
    assert [r.runner for r in chosen] == [1, 2]
    assert choose_victims(residents, {HOST: 10, GPU: 11}, budget) is None
