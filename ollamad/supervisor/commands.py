"""Everything the core can order, as frozen values. The loop carries them out."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Mapping

from ollamad.errors import OllamadError
from ollamad.runners.protocol import LoadPlan
from ollamad.supervisor.events import RunnerId, TicketId


@dataclasses.dataclass(frozen=True, slots=True)
class StartRunner:
    """Start a process and load a model in it. Its memory is reserved already."""

    runner: RunnerId
    name: str
    plan: LoadPlan
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Added to the runner's own, for example the devices that it may see."""
    memory_bytes: int = dataclasses.field(default=0, compare=False)
    """Main memory that is reserved for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class StopRunner:
    """Climb the stop ladder with this runner."""

    runner: RunnerId


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """The request may use the runner."""

    ticket: TicketId
    runner: RunnerId


@dataclasses.dataclass(frozen=True, slots=True)
class Refuse:
    """The request gets this error."""

    ticket: TicketId
    error: OllamadError


@dataclasses.dataclass(frozen=True, slots=True)
class AssignThreads:
    """The runner is to compute with so many threads from now on."""

    runner: RunnerId
    n_threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class ReadDevices:
    """The devices are to be read now: what is decided next depends on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class GiveSign:
    """The event with this number was handled."""

    number: int


class NoteKind(enum.Enum):
    """What a note is about."""

    QUEUED = "queued"
    LOADING = "loading"
    READY = "ready"
    EVICTING = "evicting"
    STOPPING = "stopping"
    UNLOADED = "unloaded"
    CRASHED = "crashed"
    STALLED = "stalled"
    LOAD_FAILED = "load failed"
    RETRYING = "retrying"
    COOLING = "cooling"
    HEALED = "healed"
    REFUSED = "refused"
    DEVICE = "device"
    PINNED = "pinned"
    RESET = "reset"
    DAEMON = "daemon"


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """A decision or a turn of events for the log and for whoever watches, with its numbers."""

    kind: NoteKind
    message: str
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
    level: int = logging.INFO


Command = StartRunner | StopRunner | Grant | Refuse | AssignThreads | ReadDevices | GiveSign | Note
