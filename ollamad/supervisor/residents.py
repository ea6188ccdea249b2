"""What the core remembers of each runner: plan, leases, idle clock, state."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.modelinfo import WeightsId
from ollamad.runners import states
from ollamad.runners.protocol import LoadPlan, MemoryUse
from ollamad.runners.states import RunnerEvent, RunnerState
from ollamad.supervisor.events import RunnerId, Subject, TicketId

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
    plan: LoadPlan
    demand: MemoryDemand
    placement: Placement
    keep_alive_s: float
    state: RunnerState = RunnerState.STARTING
    leases: set[TicketId] = dataclasses.field(default_factory=set)
    idle_since: float = math.inf
    """When the last lease was given back; infinite while there is one or before it is ready."""
    deadline: float = math.inf
    """When the current state has lasted too long."""
    progress: float = 0.0
    memory: MemoryUse | None = None
    n_threads: int = 0
    """Threads it computes with now; at first what its plan says."""
    has_failed: bool = False
    """It crashed, stalled or could not be loaded; else it leaves because it was ordered to."""
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
        return self.idle_since + self.keep_alive_s if self.is_idle else math.inf

    @property
    def held_bytes(self) -> int:
        """Memory it holds: measured once it is loaded, estimated before.

        What computing needs is always the estimate: it is touched by the first large batch only.
        """
        if self.memory is not None:
            measured = self.memory.anonymous_bytes + self.memory.file_bytes
            return measured + self.demand.compute_bytes
        return self.demand.total_bytes

    def advance(self, event: RunnerEvent) -> None:
        """Take *event*; the old state's deadline is over."""
        self.state = states.advance(self.state, event)
        self.deadline = math.inf
