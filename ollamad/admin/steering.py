"""What the admin door asks of the rest of the daemon. The composition root provides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ollamad.adminwire import Feature, Reloaded, Sensors
from ollamad.gpu.devices import DeviceFacts, DeviceHealth, DeviceId
from ollamad.modelinfo import StoredModel, WeightsId
from ollamad.options import LoadOptions
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.views import ResidentView


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaitingView:
    """A request that waits."""

    ticket: int
    name: str
    place: int
    waited_s: float
    priority: int
    client: str
    waits_for: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """A device and who holds it."""

    facts: DeviceFacts
    health: DeviceHealth
    why: str
    capacity_bytes: int
    headroom_bytes: int
    others_bytes: int
    reserved_bytes: int
    free_bytes: int
    holders: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoolingView:
    """A model that cools."""

    name: str
    reason: str
    until: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would happen."""

    verdict: str
    demand: Mapping[str, int]
    placement: Mapping[DeviceId, int]
    n_gpu_layers: int
    room: Mapping[DeviceId, int]
    victims: Sequence[str]
    lines: Sequence[str]


class Steering(Protocol):
    """The supervisor, as far as it is steered by hand. Views are snapshots."""

    @property
    def state(self) -> DaemonState:
        """Whether it takes new work."""
        ...

    def residents(self) -> Sequence[ResidentView]:
        """Return what has a runner."""
        ...

    def waiting(self) -> Sequence[WaitingView]:
        """Return who waits, the next one first."""
        ...

    def devices(self) -> Sequence[DeviceView]:
        """Return the devices."""
        ...

    def cooling(self) -> Sequence[CoolingView]:
        """Return the models that are not started for a while."""
        ...

    def explain(self, model: StoredModel, options: LoadOptions) -> Explanation:
        """Return what a request would meet now. Does nothing."""
        ...

    def evict(self, weights_id: WeightsId, force: bool = False) -> bool:
        """Make a runner leave. Returns whether there is one."""
        ...

    def restart(self, weights_id: WeightsId) -> bool:
        """Make a runner leave and come back. Returns whether there is one."""
        ...

    def reset(self, weights_id: WeightsId) -> bool:
        """Forget failures. Returns whether there were any."""
        ...

    def pin(self, weights_id: WeightsId, pinned: bool) -> bool:
        """Keep a runner whoever needs room, or no longer. Returns whether there is one."""
        ...

    def drain_begin(self) -> None:
        """Take no new work."""
        ...

    def resume(self) -> None:
        """Take new work again."""
        ...

    async def preload(self, model: StoredModel, options: LoadOptions) -> None:
        """Load a model and wait until it is ready. Raises what a request would be refused with."""
        ...


class Models(Protocol):
    """The catalogue, as far as names are looked up."""

    def remembered(self, wanted: str) -> StoredModel | None:
        """Return the model if that needs no waiting. Raises InvalidName."""
        ...

    def find(self, wanted: str) -> StoredModel:
        """Return the model; may wait for the disk. Raises ModelNotFound and others."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else of the daemon the door shows and steers. Nothing here waits."""

    listen: str
    """The address of the HTTP API."""
    store: str
    config_file: str | None
    reload: Callable[[], Reloaded]
    """Reads the configuration anew. Raises ConfigError."""
    features: Callable[[], Sequence[Feature]]
    """What is on, and what this system does not offer."""
    sensors: Callable[[], Mapping[DeviceId, Sensors]]
    """What GPUs say of themselves; empty if none does."""
    gpus: Callable[[], str]
    """How the GPUs are watched, in words."""
