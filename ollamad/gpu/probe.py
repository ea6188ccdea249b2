"""`GpuProbe`: what the daemon asks a GPU driver, and what it is told.

The calls are synchronous and may block for ever, as drivers do; `ollamad.gpu.monitor` makes them
in threads that it can do without. Memory is in bytes. A number that the driver does not tell is
`None`, never 0.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Protocol

from ollamad.gpu.devices import DeviceFacts, DeviceId


class ProbeFailed(Exception):
    """The driver could not be asked. A new session may help."""


class DriverAbsent(ProbeFailed):
    """There is no driver, or no library to ask it with. It may be installed or loaded later."""


class DriverMismatch(ProbeFailed):
    """Driver and library are of different versions, as after an upgrade without a restart."""


class EventsUnavailable(ProbeFailed):
    """This session tells no events."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """What does not change while a driver is loaded."""

    driver_version: str = ""
    nvml_version: str = ""
    cuda_version: tuple[int, int] | None = None
    """The newest CUDA that the driver runs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuSensors:
    """The live numbers of one GPU or MIG instance."""

    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    """By anybody, with what the driver keeps for itself."""
    memory_free_bytes: int | None = None
    utilisation: float | None = None
    """The part of the last moments in which anything was computed, 0 to 1."""
    memory_utilisation: float | None = None
    """The part of the last moments in which its memory was read or written, 0 to 1."""
    temperature_c: int | None = None
    slowdown_c: int | None = None
    """The temperature at which it slows itself down."""
    shutdown_c: int | None = None
    """The temperature at which it turns itself off."""
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_sm_mhz: int | None = None
    clock_sm_max_mhz: int | None = None
    clock_memory_mhz: int | None = None
    clock_memory_max_mhz: int | None = None
    ecc_corrected: int | None = None
    """Memory errors since the driver was loaded that did no harm."""
    ecc_uncorrected: int | None = None
    """Memory errors since the driver was loaded that destroyed data."""
    persistence: bool | None = None
    """Whether the driver stays initialised while nobody uses the GPU."""
    throttle: tuple[str, ...] = ()
    """What holds its clocks down, such as `power cap`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbedGpu:
    """One GPU or MIG instance in a reading."""

    facts: DeviceFacts
    """`capacity_bytes` is 0 where the driver does not tell its memory."""
    sensors: GpuSensors
    by_process: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Memory by process id, where the driver tells it."""
    is_divided: bool = False
    """A GPU in MIG mode: models go on its instances, never on itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LostGpu:
    """A GPU that the driver lists and cannot talk to."""

    index: int
    device: DeviceId | None
    """`None` if it was lost before it could ever tell its UUID."""
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """All that one question to the driver has brought."""

    driver: DriverFacts
    session: int
    """Counts how often the library was initialised: a higher one has looked at the bus anew."""
    gpus: tuple[ProbedGpu, ...] = ()
    lost: tuple[LostGpu, ...] = ()
    has_events: bool = False
    """Whether `GpuProbe.wait` can tell anything in this session."""


class GpuEventKind(enum.Enum):
    """What a driver reports by itself."""

    XID = "Xid"
    ECC_SINGLE = "corrected memory error"
    ECC_DOUBLE = "uncorrectable memory error"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuEvent:
    """Something that the driver reported."""

    kind: GpuEventKind
    device: DeviceId
    """The GPU."""
    instance: DeviceId | None = None
    """The MIG instance, where the driver names one."""
    xid: int = 0
    """NVIDIA's number of the error, for XID."""


class GpuProbe(Protocol):
    """A way to ask a driver. Both methods may be called from several threads, and may hang."""

    def read(self, *, anew: bool) -> GpuReading:
        """Return all about all GPUs; *anew* starts a new session with the driver first.

        Raises ProbeFailed: DriverAbsent, DriverMismatch, or plainly.
        """
        ...

    def wait(self, timeout_s: float) -> tuple[GpuEvent, ...]:
        """Return what is reported within *timeout_s*, as soon as there is anything.

        Raises ProbeFailed, and EventsUnavailable if nothing will ever be reported.
        """
        ...
