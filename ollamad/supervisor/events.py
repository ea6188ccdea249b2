"""Everything that can happen to the core, as frozen values."""

from __future__ import annotations

import dataclasses
from typing import NewType

from ollamad.errors import OllamadError
from ollamad.gpu.devices import DeviceReading
from ollamad.modelinfo import GgufFacts, WeightsId
from ollamad.modelpolicy import NO_POLICY, ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.protocol import MemoryUse

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


@dataclasses.dataclass(frozen=True, slots=True)
class RequestGone:
    """A request is over or its client left. Legal in every state of its ticket."""

    ticket: TicketId


@dataclasses.dataclass(frozen=True, slots=True)
class UnloadAsked:
    """A user wants these weights unloaded as soon as nobody uses them."""

    weights_id: WeightsId


@dataclasses.dataclass(frozen=True, slots=True)
class DrainAsked:
    """The daemon is to take no new work and let go of what is idle."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunnerHello:
    """A runner's process is up."""

    runner: RunnerId


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
class DevicesRead:
    """Memory was read."""

    readings: tuple[DeviceReading, ...]


Event = (
    RequestArrived
    | RequestGone
    | UnloadAsked
    | DrainAsked
    | RunnerHello
    | RunnerProgress
    | RunnerLoaded
    | RunnerLoadFailed
    | RunnerStalled
    | RunnerExited
    | MemoryReturned
    | DevicesRead
)
