"""`NvmlProbe`: asks NVIDIA's driver through NVML. The only importer of pynvml.

NVML only looks: no call here creates a CUDA context. Every field is asked for by itself, because
hardly any GPU has all of them; a GPU that is lost is told as lost and spoils no other's reading.
Nothing here is asynchronous, and everything may hang in the driver (see `ollamad.gpu.monitor`).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import pynvml

from ollamad.gpu.devices import DeviceFacts, DeviceId, DeviceKind
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
from ollamad.gpu.sessionlock import SessionBusy, SessionLock

GPUS_MAX: Final = 64
"""GPUs of one machine that are looked at; no machine has more, and a number may be garbage."""
INSTANCES_MAX: Final = 16
"""MIG instances of one GPU that are looked at; today's have 7."""
PROCESSES_MAX: Final = 4096
"""Processes of one GPU whose memory is told apart."""
EVENTS_MAX: Final = 64
"""Events that one call takes along. They come in floods; the rest waits for the next call."""
RENEW_PATIENCE_S: Final = 8.0
"""How long a new session waits until nobody is in the old one: longer than an event is waited
for, shorter than a reading may take."""
SESSIONS_MAX: Final = 8
"""How often the library is shut down before a new session: it counts how often it was opened."""

_Handle = Any  # A pointer of ctypes; pynvml has no types.
_Instances = dict[tuple[int | None, int | None], DeviceId]
"""The MIG instances of a GPU, by NVIDIA's numbers of the GPU's part and the engines' part."""

_ABSENT: Final = (
    pynvml.NVMLError_LibraryNotFound,
    pynvml.NVMLError_DriverNotLoaded,
)
_LOST: Final = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "it is lost: the driver cannot reach it",
    pynvml.NVML_ERROR_RESET_REQUIRED: "it must be reset before it can be used",
}
_SESSION_OVER: Final = frozenset(
    {pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
)
_WATCHED: Final = (
    pynvml.nvmlEventTypeXidCriticalError
    | pynvml.nvmlEventTypeSingleBitEccError
    | pynvml.nvmlEventTypeDoubleBitEccError
)
_KINDS: Final = {
    pynvml.nvmlEventTypeXidCriticalError: GpuEventKind.XID,
    pynvml.nvmlEventTypeSingleBitEccError: GpuEventKind.ECC_SINGLE,
    pynvml.nvmlEventTypeDoubleBitEccError: GpuEventKind.ECC_DOUBLE,
}
_THROTTLES: Final = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat, by the driver",
    0x40: "heat",
    0x80: "power brake",
}
"""Reasons for lower clocks that are worth telling; being idle is none."""


class NvmlProbe:
    """Asks NVML. Usable from several threads at the same time; see `GpuProbe`."""

    def __init__(self) -> None:
        self._lock = SessionLock()
        self._session: _Session | None = None
        self._n_sessions = 0

    def read(self, *, anew: bool) -> GpuReading:
        """Return all about all GPUs, from a new session if *anew* or if there is none.

        Raises DriverAbsent, DriverMismatch, ProbeFailed.
        """
        try:
            if anew or self._session is None:
                with self._lock.renewing(RENEW_PATIENCE_S):
                    self._renew()
            with self._lock.using(RENEW_PATIENCE_S), _translated():
                return self._open_session().read()
        except SessionBusy as exc:
            raise ProbeFailed(str(exc)) from exc

    def wait(self, timeout_s: float) -> tuple[GpuEvent, ...]:
        """Return the next events, or nothing after *timeout_s*.

        Raises EventsUnavailable, ProbeFailed.
        """
        try:
            with self._lock.using(RENEW_PATIENCE_S), _translated():
                return self._open_session().wait(timeout_s)
        except SessionBusy as exc:
            raise ProbeFailed(str(exc)) from exc

    def _open_session(self) -> _Session:
        if self._session is None:
            raise ProbeFailed("there is no session with the driver")
        return self._session

    def _renew(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        _shut_down()
        with _translated():
            try:
                pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS)
            except pynvml.NVMLError_LibRmVersionMismatch:
                # The library in our memory may be older than the one on disk, after an upgrade.
                _unload_library()
                pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS)
            self._n_sessions += 1
            self._session = _Session(self._n_sessions)


class _Session:
    """What is known from one initialisation of the library to the next."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._driver = _driver_facts()
        self._facts: dict[DeviceId, DeviceFacts] = {}
        self._by_index: dict[int, DeviceId] = {}
        self._by_handle: dict[int | None, DeviceId] = {}
        self._instances: dict[DeviceId, _Instances] = {}
        self._watched: set[DeviceId] = set()
        self._deaf: set[DeviceId] = set()
        """GPUs that tell no events."""
        self._events: _Handle | None = _maybe(pynvml.nvmlEventSetCreate)

    def close(self) -> None:
        """Free the event set; the library frees the rest."""
        if self._events is not None:
            _maybe(pynvml.nvmlEventSetFree, self._events)
            self._events = None

    # Reading

    def read(self) -> GpuReading:
        """Return everything about everything."""
        gpus: list[ProbedGpu] = []
        lost: list[LostGpu] = []
        for index in range(min(pynvml.nvmlDeviceGetCount(), GPUS_MAX)):
            try:
                gpus += self._read_gpu(index)
            except (pynvml.NVMLError, UnicodeDecodeError) as exc:
                code = getattr(exc, "value", None)
                if code in _SESSION_OVER:
                    raise
                why = _LOST.get(code, f"it cannot be read: {exc}")
                lost.append(LostGpu(index=index, device=self._by_index.get(index), why=why))
        return GpuReading(
            driver=self._driver,
            session=self._number,
            gpus=tuple(gpus),
            lost=tuple(lost),
            has_events=bool(self._watched),
        )

    def _read_gpu(self, index: int) -> Iterator[ProbedGpu]:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        device = DeviceId(pynvml.nvmlDeviceGetUUID(handle))
        self._by_index[index] = device
        self._by_handle[_address(handle)] = device
        self._watch(handle, device)
        mig_mode = _maybe(pynvml.nvmlDeviceGetMigMode, handle)
        is_divided = mig_mode is not None and mig_mode[0] == 1
        gpu = self._read_device(handle, device, index, parent=None)
        instances = list(self._read_instances(handle, gpu.facts)) if is_divided else []
        return iter([dataclasses.replace(gpu, is_divided=is_divided), *instances])

    def _read_instances(self, handle: _Handle, gpu: DeviceFacts) -> Iterator[ProbedGpu]:
        count = _maybe(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        found: _Instances = {}
        for number in range(min(count, INSTANCES_MAX)):
            instance = _maybe(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
            uuid = _maybe(pynvml.nvmlDeviceGetUUID, instance) if instance is not None else None
            if uuid is None:  # A place that holds no instance, or one that we may not see.
                continue
            found[
                _maybe(pynvml.nvmlDeviceGetGpuInstanceId, instance),
                _maybe(pynvml.nvmlDeviceGetComputeInstanceId, instance),
            ] = DeviceId(uuid)
            yield self._read_device(instance, DeviceId(uuid), gpu.index, parent=gpu)
        self._instances[gpu.device] = found

    def _read_device(
        self, handle: _Handle, device: DeviceId, index: int | None, parent: DeviceFacts | None
    ) -> ProbedGpu:
        sensors = _sensors(handle)
        facts = self._facts.get(device)
        if facts is None:
            facts = _facts(handle, device, index, parent)
        # What was told once stays: a moment's silence of the driver does not shrink a GPU.
        capacity_bytes = sensors.memory_total_bytes or facts.capacity_bytes
        facts = dataclasses.replace(facts, index=index, capacity_bytes=capacity_bytes)
        self._facts[device] = facts
        return ProbedGpu(facts=facts, sensors=sensors, by_process=_by_process(handle))

    # Events

    def wait(self, timeout_s: float) -> tuple[GpuEvent, ...]:
        """Return the first event within *timeout_s*, and those that are there already."""
        if self._events is None or not self._watched:
            raise EventsUnavailable("no GPU tells events")
        events: list[GpuEvent] = []
        timeout_ms = int(timeout_s * 1000)
        while len(events) < EVENTS_MAX:
            try:
                data = pynvml.nvmlEventSetWait_v2(self._events, timeout_ms)
            except pynvml.NVMLError_Timeout:
                break
            timeout_ms = 0
            event = self._event_of(data)
            if event is not None:
                events.append(event)
        return tuple(events)

    def _event_of(self, data: Any) -> GpuEvent | None:
        device = self._by_handle.get(_address(data.device))
        kind = _KINDS.get(data.eventType)
        if device is None or kind is None:
            return None
        return GpuEvent(
            kind=kind,
            device=device,
            instance=self._instance_of(device, data.gpuInstanceId, data.computeInstanceId),
            xid=data.eventData if kind is GpuEventKind.XID else 0,
        )

    def _instance_of(self, gpu: DeviceId, gpu_part: int, compute_part: int) -> DeviceId | None:
        """Return the MIG instance that an event names, if it names one alone.

        An instance has a part of the GPU, and of that often all, sometimes a part of its engines.
        """
        instances = self._instances.get(gpu, {})
        exact = instances.get((gpu_part, compute_part))
        within = [device for (part, _), device in instances.items() if part == gpu_part]
        return exact or (within[0] if len(within) == 1 else None)

    def _watch(self, handle: _Handle, device: DeviceId) -> None:
        """Have the events of a GPU reported, unless they are or it tells none."""
        if self._events is None or device in self._watched or device in self._deaf:
            return
        supported = _maybe(pynvml.nvmlDeviceGetSupportedEventTypes, handle) or 0
        wanted = supported & _WATCHED
        try:
            if wanted:
                pynvml.nvmlDeviceRegisterEvents(handle, wanted, self._events)
        except pynvml.NVMLError as exc:
            if exc.value in _LOST or exc.value in _SESSION_OVER:
                raise
            wanted = 0
        (self._watched if wanted else self._deaf).add(device)


# Fields


def _maybe(function: Any, *args: Any) -> Any:
    """Return what *function* tells, or `None` if it is not told here.

    Only losing the GPU or the session is an error. What a driver answers for a field that it does
    not have differs between fields, GPUs and versions.
    """
    try:
        return function(*args)
    except pynvml.NVMLError as exc:
        if exc.value in _LOST or exc.value in _SESSION_OVER:
            raise
        return None
    except UnicodeDecodeError:  # pynvml reads every text as UTF-8.
        return None


def _driver_facts() -> DriverFacts:
    cuda = _maybe(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return DriverFacts(
        driver_version=_maybe(pynvml.nvmlSystemGetDriverVersion) or "",
        nvml_version=_maybe(pynvml.nvmlSystemGetNVMLVersion) or "",
        cuda_version=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
    )


def _facts(
    handle: _Handle, device: DeviceId, index: int | None, parent: DeviceFacts | None
) -> DeviceFacts:
    name = _maybe(pynvml.nvmlDeviceGetName, handle)
    capability = _maybe(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    if parent is not None:
        return DeviceFacts(
            device=device,
            name=name or f"{parent.name} MIG",
            capacity_bytes=0,
            kind=DeviceKind.CUDA,
            index=index,
            parent=parent.device,
            pci_bus_id=parent.pci_bus_id,
            minor=parent.minor,
            compute_capability=capability or parent.compute_capability,
        )
    pci = _maybe(pynvml.nvmlDeviceGetPciInfo_v3, handle)
    return DeviceFacts(
        device=device,
        name=name or "GPU",
        capacity_bytes=0,
        kind=DeviceKind.CUDA,
        index=index,
        pci_bus_id=_text(pci.busId) if pci is not None else "",
        minor=_maybe(pynvml.nvmlDeviceGetMinorNumber, handle),
        compute_capability=capability,
    )


def _sensors(handle: _Handle) -> GpuSensors:
    memory = _maybe(pynvml.nvmlDeviceGetMemoryInfo, handle)
    used = _maybe(pynvml.nvmlDeviceGetUtilizationRates, handle)
    power_mw = _maybe(pynvml.nvmlDeviceGetPowerUsage, handle)
    power_limit_mw = _maybe(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    persistence = _maybe(pynvml.nvmlDeviceGetPersistenceMode, handle)
    return GpuSensors(
        memory_total_bytes=memory.total if memory is not None else None,
        memory_used_bytes=memory.used if memory is not None else None,
        memory_free_bytes=memory.free if memory is not None else None,
        utilisation=used.gpu / 100 if used is not None else None,
        memory_utilisation=used.memory / 100 if used is not None else None,
        temperature_c=_maybe(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        slowdown_c=_threshold(handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        shutdown_c=_threshold(handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
        power_w=power_mw / 1000 if power_mw is not None else None,
        power_limit_w=power_limit_mw / 1000 if power_limit_mw is not None else None,
        clock_sm_mhz=_maybe(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        clock_sm_max_mhz=_maybe(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        clock_memory_mhz=_maybe(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        clock_memory_max_mhz=_maybe(
            pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM
        ),
        ecc_corrected=_ecc_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ecc_uncorrected=_ecc_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        persistence=bool(persistence) if persistence is not None else None,
        throttle=_throttle(handle),
    )


def _threshold(handle: _Handle, which: int) -> int | None:
    found: int | None = _maybe(pynvml.nvmlDeviceGetTemperatureThreshold, handle, which)
    return found or None  # Some GPUs say 0 for "none".


def _ecc_errors(handle: _Handle, error_type: int) -> int | None:
    found: int | None = _maybe(
        pynvml.nvmlDeviceGetTotalEccErrors, handle, error_type, pynvml.NVML_VOLATILE_ECC
    )
    return found


def _throttle(handle: _Handle) -> tuple[str, ...]:
    reasons = _maybe(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # Its name before driver 535.
        reasons = _maybe(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return tuple(text for bit, text in _THROTTLES.items() if reasons is not None and reasons & bit)


def _by_process(handle: _Handle) -> dict[int, int]:
    """Return memory by process. One that computes and draws is listed twice, with the same sum."""
    by_process: dict[int, int] = {}
    for newer, older in (
        (
            pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
            pynvml.nvmlDeviceGetComputeRunningProcesses_v2,
        ),
        (
            pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2,
        ),
    ):
        found = _maybe(newer, handle)
        if found is None:
            found = _maybe(older, handle)
        for process in (found or [])[:PROCESSES_MAX]:
            if process.pid and process.usedGpuMemory is not None:
                used_bytes = max(process.usedGpuMemory, by_process.get(process.pid, 0))
                by_process[process.pid] = used_bytes
    return by_process


def _address(handle: _Handle) -> int | None:
    """Return what tells two handles apart: where they point to."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode(errors="replace")


# The library


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _ABSENT as exc:
        raise DriverAbsent(f"no NVIDIA driver: {exc}") from exc
    except pynvml.NVMLError_LibRmVersionMismatch as exc:
        raise DriverMismatch(
            "the NVIDIA driver and its library are of different versions, as after an upgrade: "
            "load the new driver, or restart the machine"
        ) from exc
    except pynvml.NVMLError_NoPermission as exc:
        # A service's device rules are made from the drivers that are loaded when it starts.
        raise ProbeFailed(
            "the NVIDIA driver may not be asked: if it was loaded after the daemon was started as "
            "a service, restart the service"
        ) from exc
    except (pynvml.NVMLError, UnicodeDecodeError) as exc:
        raise ProbeFailed(f"the NVIDIA driver answers: {exc}") from exc


def _shut_down() -> None:
    """End all sessions, also one whose start had hung and came back late."""
    for _ in range(SESSIONS_MAX):
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:  # There is none any more, or there never was a library.
            return


def _unload_library() -> None:
    """Have the library loaded from disk again. Nobody may be in it.

    pynvml keeps it for ever, and so would the loader: a daemon that has run since before an upgrade
    of the driver would never see the new one.
    """
    with pynvml.libLoadLock:
        library, pynvml.nvmlLib = pynvml.nvmlLib, None
        pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - it has no other way.
    if library is not None:
        close = ctypes.CDLL(None).dlclose
        close.argtypes = [ctypes.c_void_p]
        close(library._handle)  # noqa: SLF001 - ctypes has no name for it.
