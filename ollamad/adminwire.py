"""The vocabulary of the admin door: where its socket is, and what is asked and answered over it.

The types are those of `ollamad/admin/io.ollamad.Admin.varlink`, which a test holds them to. Names
are the wire's; sizes are bytes, times seconds, and `None` means unknown or not applicable.
`ollamactl` knows the daemon by this module.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

INTERFACE: Final = "io.ollamad.Admin"

SOCKET_NAME: Final = "admin.sock"
SOCKET_VARIABLE: Final = "OLLAMAD_ADMIN_SOCKET"
"""The environment variable that says where the socket is, to the daemon and to `ollamactl`."""
SYSTEM_FOLDER: Final = Path("/run/ollamad")
SYSTEM_SOCKET: Final = SYSTEM_FOLDER / SOCKET_NAME
"""Where the service manager opens the socket, or a daemon that root has started."""
SERVICE_SOCKET: Final = SYSTEM_FOLDER / "private" / SOCKET_NAME
"""Where a service without a socket unit opens it: in its own runtime folder."""

READ_GROUP: Final = "ollama"
"""The group that may look, unless configured otherwise."""
CHANGE_GROUP: Final = "ollama-admin"
"""The group that may change things, unless configured otherwise."""

WAITING_SHOWN_MAX: Final = 200
"""Waiting requests that `Queue` lists; it counts all of them. With the longest words that they may
have they still fit into a message."""
COOLING_SHOWN_MAX: Final = 100
"""Cooling models that `Status` lists, for the same reason."""


def default_socket(environ: Mapping[str, str], home: Path, *, is_root: bool) -> Path:
    """Return where a daemon opens the socket if nobody says.

    1. A service: in the folder that the service manager has made for it.
    2. A login session's daemon: in the session's runtime folder.
    3. Root's: in /run/ollamad.
    4. Others': in the user's state folder, as there is no better place.
    """
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if runtime:
        return Path(runtime) / SOCKET_NAME
    session = environ.get("XDG_RUNTIME_DIR", "")
    if session.startswith("/"):
        return Path(session) / "ollamad" / SOCKET_NAME
    if is_root:
        return SYSTEM_SOCKET
    return _state_socket(environ, home)


def socket_candidates(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Return where `ollamactl` looks for the socket if nobody says: the user's own, the system's.

    The first that exists is the one.
    """
    session = environ.get("XDG_RUNTIME_DIR", "")
    own = (Path(session) / "ollamad" / SOCKET_NAME,) if session.startswith("/") else ()
    return (*own, _state_socket(environ, home), SYSTEM_SOCKET, SERVICE_SOCKET)


def _state_socket(environ: Mapping[str, str], home: Path) -> Path:
    state = environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else home / ".local" / "state"
    return folder / "ollamad" / SOCKET_NAME


class DaemonState(enum.StrEnum):
    """Where the daemon is in its life."""

    SERVING = "serving"
    PAUSED = "paused"
    """Drained by hand: it may serve again."""
    DRAINING = "draining"
    """On the way to its end."""
    STOPPED = "stopped"


class DeviceKind(enum.StrEnum):
    """What a device is."""

    HOST = "host"
    CUDA = "cuda"


class DeviceHealth(enum.StrEnum):
    """Whether a device is trusted with models."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"
    RECOVERING = "recovering"


class RunnerState(enum.StrEnum):
    """Where a runner is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    RECLAIMING = "reclaiming"
    GONE = "gone"


class Level(enum.StrEnum):
    """How much an event or a log line matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


# What answers are made of.


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """Something that not every system offers."""

    name: str
    is_on: bool
    why: str = ""
    """What it is good for, or what is missing where it is off."""


class Cooling(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is not started again for a while."""

    model: str
    reason: str
    retry_after_s: float


class Sensors(msgspec.Struct, frozen=True, kw_only=True):
    """What a GPU says of itself."""

    utilisation: float | None = None
    """The part of the last moments in which it computed, 0 to 1."""
    memory_utilisation: float | None = None
    """The part of the last moments in which its memory was used, 0 to 1."""
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_sm_mhz: int | None = None
    clock_memory_mhz: int | None = None
    throttle: tuple[str, ...] = ()
    """What holds its clocks down."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A model and what it holds of a device."""

    model: str
    held_bytes: int


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device that holds models. Main memory is one."""

    device: str
    """A GPU's or MIG instance's UUID, or `host`."""
    kind: DeviceKind
    name: str
    index: int | None = None
    parent: str | None = None
    health: DeviceHealth = DeviceHealth.HEALTHY
    why: str = ""
    """What made it less than healthy."""
    capacity_bytes: int
    headroom_bytes: int
    others_bytes: int
    reserved_bytes: int
    free_bytes: int
    """What may still be reserved; negative when others took what is reserved."""
    holders: tuple[Holder, ...] = ()
    sensors: Sensors | None = None


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner's engine does. Totals count from the model's load."""

    slots_busy: int = 0
    waiting: int = 0
    kv_cells: int = 0
    kv_used: int = 0
    kv_shared: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    forced_tokens: int = 0


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """One model that has a runner."""

    runner: int
    """Its number; never used twice."""
    pid: int | None = None
    """Its process; `None` before it is up."""
    model: str
    weights: str
    state: RunnerState
    age_s: float
    """Since it was started."""
    progress: float
    """How much of it is loaded, 0 to 1."""
    failures: int = 0
    """Of its model, as far as they still count."""
    held_bytes: int
    """Memory it holds, of all devices."""
    gpu_bytes: int
    """The part of it on GPUs."""
    n_ctx: int
    """Tokens of context for each request."""
    n_slots: int
    """Requests it computes at the same time."""
    requests: int
    """Requests that use it."""
    is_pinned: bool = False
    expires_in_s: float | None = None
    """When it leaves if nobody uses it from now on; `None` for never."""
    tokens_per_s: float = 0.0
    engine: Engine | None = None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits for a model."""

    ticket: int
    model: str
    place: int
    """1 is next."""
    waited_s: float
    priority: int = 0
    client: str = ""
    waits_for: str = ""
    """What has to happen first."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the memory that a model needs."""

    kind: str
    bytes: int


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """A device as a placement sees it."""

    device: str
    needed_bytes: int
    """What the model would take of it."""
    free_bytes: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. Which fields have a value follows from the kind."""

    at: str
    """When, in UTC: `2026-01-31T12:00:00.000Z`."""
    kind: str
    level: Level
    message: str
    """For people, with the numbers."""
    model: str | None = None
    runner: int | None = None
    device: str | None = None
    place: int | None = None
    """Place in the line of a request that waits; 1 is next."""
    fraction: float | None = None
    """How much of a model is loaded, 0 to 1."""
    reason: str | None = None
    fields: Mapping[str, str] = MappingProxyType({})
    """Everything else that is known, as text."""


# What methods take and return.


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class OfModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model by its name."""

    model: str


class OfEvict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model to evict, and how."""

    model: str
    force: bool | None = None
    """Do not wait for the requests that use it."""


class OfLoad(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, and options as requests have them."""

    model: str
    options: dict[str, Any] | None = None
    """By Ollama's names, such as `num_ctx`. Any: each option has its own type."""


class OfLevel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log level."""

    level: Level


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon at a glance."""

    version: str
    pid: int
    uptime_s: float
    state: DaemonState
    listen: str
    """The address of the HTTP API."""
    store: str
    """The folder of the models."""
    config_file: str | None = None
    """`None` if there is none."""
    log_level: Level
    may_change: bool
    """Whether whoever asks may change things, too."""
    runners: int
    """Models that have a runner, those that come and go included."""
    requests: int
    """Requests that use a runner."""
    waiting: int
    """Requests that wait for one."""
    tokens_per_s: float
    """Generated by all runners together, over the last seconds."""
    generated_tokens: int
    """Since the daemon started."""
    gpus: str
    """How the GPUs are watched, in words."""
    cooling: tuple[Cooling, ...] = ()
    """`COOLING_SHOWN_MAX` at most."""
    features: tuple[Feature, ...] = ()


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """All devices, main memory included."""

    devices: tuple[Device, ...]


class Runners(msgspec.Struct, frozen=True, kw_only=True):
    """What is in memory."""

    runners: tuple[Runner, ...]


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """Who waits, the next one first."""

    total: int
    waiting: tuple[Waiting, ...]
    """The first ones, `WAITING_SHOWN_MAX` at most."""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to a request for a model now, and why. Nothing was done."""

    model: str
    verdict: str
    lines: tuple[str, ...]
    """The reasons in words, with the numbers."""
    demand: tuple[Demand, ...]
    room: tuple[Room, ...]
    n_gpu_layers: int | None = None
    """Layers that would be offloaded; `None` if it has no place."""
    victims: tuple[str, ...] = ()
    """Models that would have to leave."""


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model was cooling."""

    was_cooling: bool


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What reading the configuration anew has changed."""

    changed: tuple[str, ...]
    """Settings that apply from now on."""
    needs_restart: tuple[str, ...]
    """Settings that have changed, too, but apply after a restart only."""


class NextEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One reply of `Events`."""

    event: Event | None = None
    """`None` in the first reply: from then on nothing is missed untold."""
    missed: int = 0
    """Events lost before this one, because its reader was too slow."""


# Errors.


class ModelNotFound(msgspec.Struct, frozen=True, kw_only=True):
    """No model of that name is stored or loaded."""

    model: str
    message: str


class NotLoaded(msgspec.Struct, frozen=True, kw_only=True):
    """The model is stored, but has no runner."""

    model: str
    message: str


class PermissionDenied(msgspec.Struct, frozen=True, kw_only=True):
    """The caller may not do this."""

    message: str
    group: str
    """Whose members may."""


class BadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The call asks for something that cannot be meant, such as an option that does not exist."""

    message: str


class CannotServeNow(msgspec.Struct, frozen=True, kw_only=True):
    """Not at the moment; it may succeed later."""

    message: str
    retry_after_s: float


class CannotServe(msgspec.Struct, frozen=True, kw_only=True):
    """It failed, and trying again will not help by itself."""

    message: str


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A bug in the daemon. Its log has more."""

    message: str


AdminError = (
    ModelNotFound
    | NotLoaded
    | PermissionDenied
    | BadRequest
    | CannotServeNow
    | CannotServe
    | Failed
)

ERRORS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        f"{INTERFACE}.{kind.__name__}": kind
        for kind in (
            ModelNotFound,
            NotLoaded,
            PermissionDenied,
            BadRequest,
            CannotServeNow,
            CannotServe,
            Failed,
        )
    }
)
"""The parameters of each of the interface's errors, by its name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """One method of the interface."""

    takes: type[Any]
    returns: type[Any]
    changes: bool
    """Whether it changes something, which not everybody who may look may do."""
    streams: bool = False
    """Whether it replies until the caller hangs up, and so must be called with `more`."""
    waits: bool = False
    """Whether it may take long: then a caller that hangs up ends the wait."""


def _look(takes: type[Any], returns: type[Any], *, streams: bool = False) -> MethodSpec:
    return MethodSpec(takes=takes, returns=returns, changes=False, streams=streams)


def _change(takes: type[Any], returns: type[Any] = Nothing, *, waits: bool = False) -> MethodSpec:
    return MethodSpec(takes=takes, returns=returns, changes=True, waits=waits)


METHODS: Final[Mapping[str, MethodSpec]] = MappingProxyType(
    {
        "Status": _look(Nothing, Status),
        "Gpus": _look(Nothing, Gpus),
        "Runners": _look(Nothing, Runners),
        "Queue": _look(Nothing, Queue),
        "Explain": _look(OfLoad, Explained),
        "Events": _look(Nothing, NextEvent, streams=True),
        "Evict": _change(OfEvict),
        "Restart": _change(OfModel),
        "Reset": _change(OfModel, Reset),
        "Pin": _change(OfModel),
        "Unpin": _change(OfModel),
        "Preload": _change(OfLoad, waits=True),
        "Drain": _change(Nothing),
        "Resume": _change(Nothing),
        "Reload": _change(Nothing, Reloaded),
        "SetLogLevel": _change(OfLevel),
    }
)
"""Every method of the interface, by its name."""
