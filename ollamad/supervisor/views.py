"""Frozen snapshots of what runs, for `/api/ps`, the admin door and logs. Advisory only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from ollamad.gpu.budget import Amounts
from ollamad.gpu.devices import DeviceFacts, DeviceHealth, SeenDevice
from ollamad.gpu.placement import Placement
from ollamad.modelinfo import WeightsId
from ollamad.runners.protocol import EngineGauges
from ollamad.runners.states import RunnerState
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import RunnerId, TicketId
from ollamad.supervisor.residents import Resident


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResidentView:
    """One model that has a runner. Times are seconds of Trio's clock."""

    runner: RunnerId
    pid: int
    """Its process; 0 before it has said hello."""
    name: str
    weights_id: WeightsId
    state: RunnerState
    since: float
    """When it came into this state."""
    started_at: float
    age_s: float
    """Since it was started."""
    progress: float
    held_bytes: int
    """Memory it holds on all devices."""
    vram_bytes: int
    """The part of it on GPUs."""
    amounts: Amounts
    """What it holds of each device."""
    placement: Placement
    n_ctx: int
    n_slots: int
    n_leases: int
    expires_at: float
    """When it leaves if nobody uses it from now on; infinite for never."""
    is_pinned: bool
    priority: int
    n_failures: int
    """Failures of the model that are not forgotten yet."""
    gauges: EngineGauges | None
    """What its engine last said of itself; `None` before it said anything."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaitingView:
    """One request that waits for a runner."""

    ticket: TicketId
    name: str
    place: int
    """In the order in which they are served, from 1."""
    waited_s: float
    priority: int
    """Its model's, and what waiting has added to it."""
    client: str
    waits_for: str
    """In words."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device and who holds it. Sizes are bytes."""

    facts: DeviceFacts
    health: DeviceHealth
    why: str
    """What made it less than healthy."""
    capacity_bytes: int
    """What may be planned with and headroom; 0 if it may not be used."""
    headroom_bytes: int
    others_bytes: int
    """What others were last seen to use."""
    reserved_bytes: int
    free_bytes: int
    """What may be reserved now; negative when others took what we hold."""
    holders: Mapping[str, int]
    """What each model holds, by its name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoolingView:
    """One model that is not started again for a while."""

    weights_id: WeightsId
    name: str
    n_failures: int
    reason: str
    """Of its last failure."""
    until: float
    """In seconds of Trio's clock."""


def resident_views(
    core: Core, now: float, gauges_of: Callable[[RunnerId], EngineGauges | None]
) -> tuple[ResidentView, ...]:
    """Return what is resident at *now*."""
    return tuple(
        _resident(core, resident, now, gauges_of(resident.runner))
        for resident in core.residents.values()
    )


def _resident(
    core: Core, resident: Resident, now: float, gauges: EngineGauges | None
) -> ResidentView:
    since = resident.idle_since if resident.is_idle else now
    keeps = math.isfinite(since) and not resident.is_pinned
    return ResidentView(
        runner=resident.runner,
        pid=resident.pid,
        name=resident.subject.name,
        weights_id=resident.weights_id,
        state=resident.state,
        since=resident.since,
        started_at=resident.started_at,
        age_s=now - resident.started_at,
        progress=resident.progress,
        held_bytes=resident.held_bytes,
        vram_bytes=resident.vram_bytes,
        amounts=core.budget.held_by(resident.runner),
        placement=resident.placement,
        n_ctx=resident.plan.n_ctx,
        n_slots=resident.plan.n_slots,
        n_leases=len(resident.leases),
        expires_at=since + resident.keep_alive_s if keeps else math.inf,
        is_pinned=resident.is_pinned,
        priority=resident.subject.policy.priority,
        n_failures=core.roster.failures.n_failures(resident.weights_id),
        gauges=gauges,
    )


def waiting_views(core: Core, now: float) -> tuple[WaitingView, ...]:
    """Return who waits at *now*, whose turn it is first."""
    ageing_s = core.scheduling.ageing_s
    return tuple(
        WaitingView(
            ticket=ticket.id,
            name=ticket.subject.name,
            place=place,
            waited_s=now - ticket.arrived_at,
            priority=ticket.priority(now, ageing_s),
            client=ticket.client,
            waits_for=ticket.waits_for,
        )
        for place, ticket in enumerate(core.line.in_turn(now, ageing_s), start=1)
    )


def device_views(core: Core) -> tuple[DeviceView, ...]:
    """Return the devices as they were last seen."""
    return tuple(_device(core, one) for one in core.roster.inventory.devices)


def _device(core: Core, one: SeenDevice) -> DeviceView:
    budget, device = core.budget, one.facts.device
    holders: dict[str, int] = {}
    for resident in core.residents.values():
        if n_bytes := budget.held_by(resident.runner).get(device, 0):
            name = resident.subject.name
            holders[name] = holders.get(name, 0) + n_bytes
    return DeviceView(
        facts=one.facts,
        health=one.health,
        why=one.why,
        capacity_bytes=budget.capacity_bytes(device),
        headroom_bytes=budget.headroom_bytes(device),
        others_bytes=budget.others_bytes(device),
        reserved_bytes=budget.reserved_bytes(device),
        free_bytes=budget.free_bytes(device),
        holders=holders,
    )


def cooling_views(core: Core, now: float) -> tuple[CoolingView, ...]:
    """Return which models cool at *now*."""
    return tuple(
        CoolingView(
            weights_id=weights_id,
            name=history.name,
            n_failures=len(history.failed_at),
            reason=history.last_reason,
            until=history.cools_until,
        )
        for weights_id, history in core.roster.failures.of_cooling(now)
    )
