"""What the admin door asks of the rest of the daemon. The composition root provides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ollamad.adminwire import Reloaded
from ollamad.gpu.devices import DeviceId
from ollamad.modelinfo import StoredModel, WeightsId
from ollamad.options import LoadOptions
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.explanation import Explanation
from ollamad.supervisor.views import CoolingView, DeviceView, ResidentView, WaitingView


class ToldFeature(Protocol):
    """Something that not every system offers. See `wire.Feature`."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def is_on(self) -> bool:
        """Whether it is there and used."""
        ...

    @property
    def why(self) -> str:
        """What it is good for, or why it is not there."""
        ...


class LiveSensors(Protocol):
    """What a GPU says of itself, with `None` for what it does not tell. See `wire.Sensors`."""

    @property
    def utilisation(self) -> float | None:
        """The part of the last moments in which anything was computed, 0 to 1."""
        ...

    @property
    def memory_utilisation(self) -> float | None:
        """The part of the last moments in which its memory was used, 0 to 1."""
        ...

    @property
    def temperature_c(self) -> float | None:
        """Its temperature."""
        ...

    @property
    def power_w(self) -> float | None:
        """What it draws."""
        ...

    @property
    def power_limit_w(self) -> float | None:
        """What it may draw."""
        ...

    @property
    def clock_sm_mhz(self) -> int | None:
        """Its clock for computing."""
        ...

    @property
    def clock_memory_mhz(self) -> int | None:
        """Its memory's clock."""
        ...

    @property
    def throttle(self) -> tuple[str, ...]:
        """What holds its clocks down."""
        ...


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
        """Keep a model once it is loaded, or no longer. Returns whether it is loaded now."""
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
    features: Callable[[], Iterable[ToldFeature]] = tuple
    """What is on, and what this system does not offer."""
    sensors: Callable[[], Mapping[DeviceId, LiveSensors]] = dict
    """What GPUs say of themselves; empty if none does."""
    gpus: Callable[[], str] = lambda: "not watched"
    """How the GPUs are watched, in words."""
