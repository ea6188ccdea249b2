"""Frozen snapshots of what runs, for `/api/ps`, `ollamactl` and logs. Advisory only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ollamad.modelinfo import WeightsId
from ollamad.runners.protocol import EngineGauges
from ollamad.runners.states import RunnerState
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import RunnerId
from ollamad.supervisor.residents import Resident


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResidentView:
    """One model that has a runner. Times are seconds of Trio's clock."""

    runner: RunnerId
    name: str
    weights_id: WeightsId
    state: RunnerState
    progress: float
    held_bytes: int
    vram_bytes: int
    n_ctx: int
    n_slots: int
    n_leases: int
    expires_at: float
    """When it leaves if nobody uses it from now on; infinite for never."""
    gauges: EngineGauges | None
    """What its engine last said of itself; `None` before it said anything."""


def resident_views(
    core: Core, now: float, gauges_of: Callable[[RunnerId], EngineGauges | None]
) -> tuple[ResidentView, ...]:
    """Return what is resident at *now*."""
    return tuple(
        _view(resident, now, gauges_of(resident.runner)) for resident in core.residents.values()
    )


def _view(resident: Resident, now: float, gauges: EngineGauges | None) -> ResidentView:
    since = resident.idle_since if resident.is_idle else now
    return ResidentView(
        runner=resident.runner,
        name=resident.subject.name,
        weights_id=resident.weights_id,
        state=resident.state,
        progress=resident.progress,
        held_bytes=resident.held_bytes,
        vram_bytes=0,
        n_ctx=resident.plan.n_ctx,
        n_slots=resident.plan.n_slots,
        n_leases=len(resident.leases),
        expires_at=since + resident.keep_alive_s if math.isfinite(since) else math.inf,
        gauges=gauges,
    )
