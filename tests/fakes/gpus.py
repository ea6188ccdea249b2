"""GPUs that are not there: one description of a machine, and a probe in memory that shows it.

`GpuWorld` says which GPUs a machine has and how they are. `FakeGpus` tells it as the real probe
would, which `tests/contract/test_gpu_probe.py` holds it to; `tests.fakes.nvml` shows the same world
through a C library to the real probe. Memory is in bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar, cast

import trio

from ollamad.gpu.devices import DeviceFacts, DeviceId, DeviceKind
from ollamad.gpu.hangproof import CallHung
from ollamad.gpu.probe import (
    DriverAbsent,
    DriverFacts,
    DriverMismatch,
    EventsUnavailable,
    GpuEvent,
    GpuEventKind,
    GpuReading,
    GpuSensors,
    LostGpu,
    ProbedGpu,
    ProbeFailed,
)
from ollamad.units import GIB

T = TypeVar("T")

LIBRARY_VERSION = "13.615.71"
"""The version of the fake library, and of a driver that matches it."""

H100_BYTES = 80 * GIB


@dataclasses.dataclass
class FakeInstance:
    """A MIG instance."""

    uuid: str
    gi: int
    """NVIDIA's number of its part of the GPU."""
    ci: int = 0
    """And of its part of that part's engines."""
    name: str = "NVIDIA H100 MIG 1g.10gb"
    total_bytes: int = 10 * GIB
    used_bytes: int = 0
    by_process: dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class FakeGpu:
    """A GPU. What is `None` is not supported by it."""

    uuid: str
    name: str = "NVIDIA H100"
    total_bytes: int | None = H100_BYTES
    used_bytes: int = GIB
    minor: int | None = 0
    busy_percent: int | None = 50
    temperature_c: int | None = 40
    slowdown_c: int | None = 87
    shutdown_c: int | None = 92
    power_mw: int | None = 120_000
    power_limit_mw: int | None = 700_000
    clock_sm_mhz: int | None = 1980
    clock_memory_mhz: int | None = 2619
    corrected: int | None = 0
    uncorrected: int | None = 0
    throttle: int | None = 0
    compute_capability: tuple[int, int] | None = (9, 0)
    pci_bus_id: str | None = "00000000:17:00.0"
    persistence: bool | None = True
    by_process: dict[int, int] = dataclasses.field(default_factory=dict)
    drawing: dict[int, int] = dataclasses.field(default_factory=dict)
    """Memory of processes that use the GPU for graphics."""
    is_divided: bool | None = False
    instances: list[FakeInstance] = dataclasses.field(default_factory=list)
    tells_events: bool = True
    error: int = 0
    """What every call about it fails with: 15 is lost, 16 needs a reset."""


@dataclasses.dataclass
class GpuWorld:
    """A machine's GPUs and their driver."""

    gpus: list[FakeGpu] = dataclasses.field(default_factory=list)
    driver_version: str = "570.86.10"
    nvml_version: str = LIBRARY_VERSION
    """Of the driver; the library's own may differ, and then they do not work together."""
    cuda: int | None = 12080
    is_loaded: bool = True
    """Whether there is a driver."""
    is_hung: bool = False
    """Whether reading memory does not return."""
    events: list[GpuEvent] = dataclasses.field(default_factory=list)
    """All that were ever reported; a session tells those that come after it began."""

    def xid(self, number: int, gpu: int = 0, instance: int | None = None) -> None:
        """Have the driver report an Xid."""
        found = self.gpus[gpu]
        self.events.append(
            GpuEvent(
                kind=GpuEventKind.XID,
                device=DeviceId(found.uuid),
                instance=DeviceId(found.instances[instance].uuid) if instance is not None else None,
                xid=number,
            )
        )


class _Nothing(Exception):
    """There is no event yet; in virtual time, somebody waits for one."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self.timeout_s = timeout_s


class FakeGpus:
    """A probe that shows a world."""

    def __init__(self, world: GpuWorld | None = None) -> None:
        self.world = world or GpuWorld()
        self.is_virtual = False
        """Whether waiting is for `VirtualCalls`, which knows what time it is."""
        self.n_readings = 0
        self._session = 0
        self._n_told = 0
        self._by_index: dict[int, DeviceId] = {}
        self._has_driver = False

    def read(self, *, anew: bool) -> GpuReading:
        """Return the world. Raises what the real probe raises."""
        world = self.world
        self.n_readings += 1
        if not world.is_loaded:
            self._has_driver = False
            raise DriverAbsent("no NVIDIA driver: it is not loaded")
        if anew or not self._session or not self._has_driver:
            if world.nvml_version != LIBRARY_VERSION:
                raise DriverMismatch("driver and library are of different versions")
            self._session += 1
            self._has_driver = True
            self._n_told = len(world.events)
            self._by_index = {}
        gpus: list[ProbedGpu] = []
        lost: list[LostGpu] = []
        for index, gpu in enumerate(world.gpus):
            if gpu.error:
                why = "it is lost" if gpu.error == 15 else "it must be reset"
                lost.append(LostGpu(index=index, device=self._by_index.get(index), why=why))
                continue
            self._by_index[index] = DeviceId(gpu.uuid)
            gpus += _probed(gpu, index)
        cuda = world.cuda
        return GpuReading(
            driver=DriverFacts(
                driver_version=world.driver_version,
                nvml_version=LIBRARY_VERSION,
                cuda_version=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
            ),
            session=self._session,
            gpus=tuple(gpus),
            lost=tuple(lost),
            has_events=self._has_events,
        )

    @property
    def _has_events(self) -> bool:
        return any(gpu.tells_events for gpu in self.world.gpus if not gpu.error)

    def wait(self, timeout_s: float) -> tuple[GpuEvent, ...]:
        """Return the events that were not told yet."""
        if not self._session:
            raise ProbeFailed("there is no session with the driver")
        if not self._has_events:
            raise EventsUnavailable("no GPU tells events")
        events = tuple(self.world.events[self._n_told :])
        self._n_told += len(events)
        if not events and self.is_virtual:
            raise _Nothing(timeout_s)
        return events


class VirtualCalls:
    """Makes calls to fake GPUs in virtual time, in which no thread could be waited for."""

    def __init__(self, gpus: FakeGpus) -> None:
        gpus.is_virtual = True
        self._world = gpus.world
        self._changed = trio.Event()
        self.n_hung = 0
        self.on_return: Callable[[], None] = lambda: None

    def changed(self) -> None:
        """Say that the world is another one now: what hung may go on, what waited may be told."""
        self._changed.set()
        self._changed = trio.Event()
        if not self._world.is_hung and self.n_hung:
            self.n_hung = 0
            self.on_return()

    async def call(self, function: Callable[[], T], *, within_s: float) -> T:
        """Return what *function* returns. Raises CallHung after *within_s*."""
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(within_s):
            while self._world.is_hung:
                await self._changed.wait()
            try:
                return function()
            except _Nothing as nothing:
                with trio.move_on_after(nothing.timeout_s):
                    await self._changed.wait()
                return cast("T", ())  # No event, as far as this call has come.
        self.n_hung += 1
        raise CallHung(f"no answer within {within_s:g} s")


def _probed(gpu: FakeGpu, index: int) -> list[ProbedGpu]:
    is_divided = bool(gpu.is_divided)
    facts = DeviceFacts(
        device=DeviceId(gpu.uuid),
        name=gpu.name,
        capacity_bytes=gpu.total_bytes or 0,
        kind=DeviceKind.CUDA,
        index=index,
        pci_bus_id=gpu.pci_bus_id or "",
        minor=gpu.minor,
        compute_capability=gpu.compute_capability,
    )
    by_process = dict(gpu.by_process)
    for pid, used_bytes in gpu.drawing.items():
        by_process[pid] = max(used_bytes, by_process.get(pid, 0))
    whole = ProbedGpu(
        facts=facts, sensors=_sensors(gpu), by_process=by_process, is_divided=is_divided
    )
    if not is_divided:
        return [whole]
    return [whole, *(_instance(facts, instance) for instance in gpu.instances)]


def _instance(gpu: DeviceFacts, instance: FakeInstance) -> ProbedGpu:
    return ProbedGpu(
        facts=dataclasses.replace(
            gpu,
            device=DeviceId(instance.uuid),
            name=instance.name,
            capacity_bytes=instance.total_bytes,
            parent=gpu.device,
        ),
        sensors=GpuSensors(
            memory_total_bytes=instance.total_bytes,
            memory_used_bytes=instance.used_bytes,
            memory_free_bytes=instance.total_bytes - instance.used_bytes,
        ),
        by_process=dict(instance.by_process),
    )


def _sensors(gpu: FakeGpu) -> GpuSensors:
    total_bytes, busy = gpu.total_bytes, gpu.busy_percent
    return GpuSensors(
        memory_total_bytes=total_bytes,
        memory_used_bytes=gpu.used_bytes if total_bytes is not None else None,
        memory_free_bytes=total_bytes - gpu.used_bytes if total_bytes is not None else None,
        utilisation=busy / 100 if busy is not None else None,
        memory_utilisation=busy / 100 if busy is not None else None,
        temperature_c=gpu.temperature_c,
        slowdown_c=gpu.slowdown_c,
        shutdown_c=gpu.shutdown_c,
        power_w=gpu.power_mw / 1000 if gpu.power_mw is not None else None,
        power_limit_w=gpu.power_limit_mw / 1000 if gpu.power_limit_mw is not None else None,
        clock_sm_mhz=gpu.clock_sm_mhz,
        clock_sm_max_mhz=gpu.clock_sm_mhz,
        clock_memory_mhz=gpu.clock_memory_mhz,
        clock_memory_max_mhz=gpu.clock_memory_mhz,
        ecc_corrected=gpu.corrected,
        ecc_uncorrected=gpu.uncorrected,
        persistence=gpu.persistence,
        throttle=("power cap",) if gpu.throttle and gpu.throttle & 4 else (),
    )
