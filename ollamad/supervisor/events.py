"""Everything that can happen to the core, as frozen values."""

from __future__ import annotations

import dataclasses
from typing import NewType

from ollamad.errors import OllamadError, RunnerCrashed
from ollamad.gpu.devices import SeenDevice
from ollamad.modelinfo import GgufFacts, WeightsId
from ollamad.modelpolicy import NO_POLICY, ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.protocol import MemoryUse
from ollamad.supervisor.healing import Part

TicketId = NewType("TicketId", int)
"""One request's claim. Never used twice."""
RunnerId = NewType("RunnerId", int)
"""One runner's life. Never used twice."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Which model a request is about: its weights, and what is needed to load them."""

    weights_id: WeightsId
    name: str
    """For people; requests of several names may share the weights."""
    model_path: str
    adapter_paths: tuple[str, ...] = ()
    facts: GgufFacts
    policy: ModelPolicy = NO_POLICY
    extra_bytes: int = 0
    """Files that are loaded with the weights: adapters."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RequestArrived:
    """Somebody asks for a lease."""

    ticket: TicketId
    subject: Subject
    options: LoadOptions
    keep_alive_s: float | None = None
    """`None` leaves the runner's as it is."""
    client: str = ""
    """Who asks, as an opaque name: requests of several clients take turns."""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestGone:
    """A request is over or its client left. Legal in every state of its ticket."""

    ticket: TicketId


@dataclasses.dataclass(frozen=True, slots=True)
class RequestContinues:
    """A request's runner has died, and it wants to go on with another one.

    Posted after the runner's own `RunnerExited`.
    """

    ticket: TicketId
    part: Part
    error: RunnerCrashed
    """How the runner died."""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestServedAgain:
    """A request that went on with another runner has got something from it."""

    ticket: TicketId
    n_tokens: int
    """Tokens of its answer that it had before; 0 for a question."""


@dataclasses.dataclass(frozen=True, slots=True)
class UnloadAsked:
    """A user wants these weights unloaded as soon as nobody uses them."""

    weights_id: WeightsId


@dataclasses.dataclass(frozen=True, slots=True)
class EvictAsked:
    """An administrator wants this runner away: when its answers are finished, or by force now."""

    weights_id: WeightsId
    by_force: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class RestartAsked:
    """An administrator wants this runner replaced by a new one when its answers are finished."""

    weights_id: WeightsId


@dataclasses.dataclass(frozen=True, slots=True)
class ResetAsked:
    """An administrator wants the failures of these weights forgotten."""

    weights_id: WeightsId


@dataclasses.dataclass(frozen=True, slots=True)
class PinAsked:
    """An administrator says whether these weights stay once they are loaded."""

    weights_id: WeightsId
    is_pinned: bool


@dataclasses.dataclass(frozen=True, slots=True)
class PauseAsked:
    """An administrator wants no new work taken, and all models gone, until work is resumed."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResumeAsked:
    """An administrator wants work taken again."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrainAsked:
    """The daemon is to end: to take no new work and let go of what is idle."""


@dataclasses.dataclass(frozen=True, slots=True)
class SignAsked:
    """Somebody wants to know whether events are still handled."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerHello:
    """A runner's process is up."""

    runner: RunnerId
    pid: int = 0
    """Its process, as drivers list it; 0 if it did not say."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerProgress:
    """A runner loads and shows it."""

    runner: RunnerId
    fraction: float


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerLoaded:
    """A runner answers requests."""

    runner: RunnerId
    memory: MemoryUse


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerLoadFailed:
    """A runner could not load its model."""

    runner: RunnerId
    error: OllamadError
    out_of_memory: bool = False
    """A device had less room than was planned with."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerStalled:
    """A busy runner's engine made no progress for too long."""

    runner: RunnerId


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerExited:
    """A runner's process has ended."""

    runner: RunnerId
    detail: str
    """How, and its last words."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryReturned:
    """The memory of an exited runner is free again."""

    runner: RunnerId


@dataclasses.dataclass(frozen=True, slots=True)
class DevicesSeen:
    """All devices that there are now, main memory included. A GPU that is missing is lost."""

    devices: tuple[SeenDevice, ...]


Event = (
    RequestArrived
    | RequestGone
    | RequestContinues
    | RequestServedAgain
    | UnloadAsked
    | EvictAsked
    | RestartAsked
    | ResetAsked
    | PinAsked
    | PauseAsked
    | ResumeAsked
    | DrainAsked
    | SignAsked
    | RunnerHello
    | RunnerProgress
    | RunnerLoaded
    | RunnerLoadFailed
    | RunnerStalled
    | RunnerExited
    | MemoryReturned
    | DevicesSeen
)
