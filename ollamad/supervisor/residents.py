"""What the core remembers of each runner: plan, leases, idle clock, state."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.modelinfo import WeightsId
from ollamad.options import LoadOptions
from ollamad.runners import states
from ollamad.runners.protocol import LoadPlan, MemoryUse
from ollamad.runners.states import RunnerEvent, RunnerState
from ollamad.supervisor.events import RunnerId, Subject, TicketId

NO_OPTIONS: Final = LoadOptions()

LEASES_BEYOND_SLOTS: Final = 2
"""Leases granted beyond a runner's slots, so that a slot never idles for a round trip between one
request's end and the next one's start. All others wait in the line, where they are counted."""

COMING: Final = frozenset({RunnerState.STARTING, RunnerState.LOADING})
"""States in which a runner will serve soon."""
SERVING: Final = frozenset({RunnerState.READY, RunnerState.DRAINING})
"""States in which a runner may be computing."""
LEAVING: Final = frozenset({RunnerState.DRAINING, RunnerState.STOPPING, RunnerState.RECLAIMING})
"""States from which a runner is never called back."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Resident:
    """A model that has a runner not yet GONE."""

    runner: RunnerId
    subject: Subject
    options: LoadOptions = NO_OPTIONS
    """What the request that caused the load had asked for."""
    plan: LoadPlan
    demand: MemoryDemand
    placement: Placement
    keep_alive_s: float
    started_at: float = 0.0
    state: RunnerState = RunnerState.STARTING
    since: float = 0.0
    """When it came into this state."""
    ready_at: float = math.inf
    pid: int = 0
    """Its process; 0 before it has said hello."""
    leases: set[TicketId] = dataclasses.field(default_factory=set)
    idle_since: float = math.inf
    """When the last lease was given back; infinite while there is one or before it is ready."""
    deadline: float = math.inf
    """When the current state has lasted too long."""
    progress: float = 0.0
    memory: MemoryUse | None = None
    n_threads: int = 0
    """Threads it computes with now; at first what its plan says."""
    is_pinned: bool = False
    """It is no victim and does not expire."""
    restarts: bool = False
    """It is started anew when it is gone."""
    measured: set[DeviceId] = dataclasses.field(default_factory=set)
    """GPUs of which it was measured, once it was loaded, what it uses there."""
    listed: set[DeviceId] = dataclasses.field(default_factory=set)
    """GPUs whose driver has ever listed its process."""
    unreturned: dict[DeviceId, int] = dataclasses.field(default_factory=dict)
    """While it is RECLAIMING: the GPUs that have not shown yet that its memory is back, with the
    bytes that were in use there, by anybody, when it ended."""
    has_failed: bool = False
    """It crashed, stalled or could not be loaded."""
    is_replaced: bool = False
    """It leaves because of where it is: who uses it goes on elsewhere."""
    on_trial: TicketId | None = None
    """A request that is to show that the runner survives it, before anybody joins it."""

    def __post_init__(self) -> None:
        self.n_threads = self.n_threads or self.plan.n_threads

    @property
    def weights_id(self) -> WeightsId:
        """The weights it holds."""
        return self.subject.weights_id

    @property
    def is_idle(self) -> bool:
        """It is ready and nobody uses it."""
        return self.state is RunnerState.READY and not self.leases

    @property
    def has_room(self) -> bool:
        """One more lease may be granted."""
        return (
            self.state is RunnerState.READY
            and self.on_trial is None
            and len(self.leases) < self.plan.n_slots + LEASES_BEYOND_SLOTS
        )

    @property
    def expires_at(self) -> float:
        """When it has been idle for as long as it may; infinite while it is not idle."""
        if self.is_pinned or not self.is_idle:
            return math.inf
        return self.idle_since + self.keep_alive_s

    @property
    def host_bytes(self) -> int:
        """Main memory it holds: measured once it is loaded, planned before.

        What it was promised counts, touched or not.
        """
        return (
            self.placement.amounts.get(HOST, 0) if self.memory is None else self.memory.held_bytes
        )

    @property
    def vram_bytes(self) -> int:
        """Memory of GPUs that was planned for it."""
        return sum(n for device, n in self.placement.amounts.items() if device != HOST)

    @property
    def held_bytes(self) -> int:
        """Memory it holds on all devices."""
        return self.host_bytes + self.vram_bytes

    @property
    def gpus(self) -> frozenset[DeviceId]:
        """The devices it is on, main memory apart."""
        return frozenset(self.placement.amounts) - {HOST}

    @property
    def loads_on(self) -> frozenset[DeviceId]:
        """Where nothing else may be loaded beside it: its GPUs, or main memory if it has none."""
        return loads_on(self.placement)

    def advance(self, event: RunnerEvent, now: float) -> None:
        """Take *event*; the old state's deadline is over."""
        self.state = states.advance(self.state, event)
        self.deadline = math.inf
        self.since = now


def loads_on(placement: Placement) -> frozenset[DeviceId]:
    """Return where nothing else may be loaded beside a load with this placement.

    Readings of a GPU can be attributed to one load only. Two loads into main memory would share
    the disk and be slower together than one after the other; what each takes of it is measured by
    the runner itself, so loads onto different GPUs run side by side although all need some.
    """
    return (frozenset(placement.amounts) - {HOST}) or frozenset({HOST})
