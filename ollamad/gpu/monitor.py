"""`GpuMonitor`: knows which GPUs are there and how they are, whatever the driver does.

The driver is asked in threads (`ollamad.gpu.hangproof`), at a steady pace while there are GPUs and
rarely while there is no driver. What comes back goes into the `HealthBook`, and a frozen picture of
all is handed on: at every reading, and at once when the driver reports something.

When the driver does not answer:

1. There is none: no GPUs. A few `stat` calls every half minute look for one.
2. Library and driver do not match: no GPUs, because nothing could start on them. Tried again at
   growing intervals.
3. It hangs or fails: the last picture stays for `give_up_s`, its GPUs suspect, because what
   computes on them mostly goes on; then the daemon goes on without GPUs. Tried again at growing
   intervals, and at once when a call that hung comes back.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import trio

from ollamad.gpu.devices import DeviceFacts, DeviceHealth, DeviceId, SeenDevice
from ollamad.gpu.hangproof import CallHung, Calls, ThreadCalls
from ollamad.gpu.health import HealthBook, HealthNews, HealthRecord, HealthRules
from ollamad.gpu.probe import (
    DriverAbsent,
    DriverFacts,
    DriverMismatch,
    EventsUnavailable,
    GpuEvent,
    GpuProbe,
    GpuReading,
    GpuSensors,
    ProbedGpu,
    ProbeFailed,
)
from ollamad.gpu.suspend import SuspendWatch

DRIVER_SIGNS: Final = (
    Path("/dev/nvidiactl"),
    Path("/proc/driver/nvidia/version"),
    Path("/dev/dxg"),  # WSL.
)
"""One of these is there when a driver is. They are kept in memory: looking never blocks."""

OnSeen = Callable[[tuple[SeenDevice, ...]], None]

_log = logging.getLogger(__name__)


def is_driver_there() -> bool:
    """Return whether it makes sense to load the library and ask."""
    return any(sign.exists() for sign in DRIVER_SIGNS)


class DriverState(enum.Enum):
    """What became of the last question to the driver."""

    OFF = "off"
    """None was asked: GPUs are switched off, or the daemon has just started."""
    ABSENT = "absent"
    FOUND = "found"
    MISMATCHED = "mismatched"
    FAILING = "failing"
    HUNG = "hung"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuStatus:
    """How asking for GPUs goes."""

    state: DriverState = DriverState.OFF
    why: str = ""
    """What is wrong, for people; empty if nothing is."""
    driver: DriverFacts = DriverFacts()  # noqa: RUF009 - it is frozen
    read_at: float | None = None
    """When the last answer came, by Trio's clock."""
    n_hung: int = 0
    """Threads that hang in the driver."""

    @property
    def text(self) -> str:
        """How it goes, in words."""
        words = [self.state.value]
        if self.driver.driver_version:
            words.append(f"driver {self.driver.driver_version}")
        if self.why:
            words.append(self.why)
        return "; ".join(words)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MonitorTimes:
    """The patience and the pace of the monitor, in seconds."""

    period_s: float = 2.0
    """From one reading to the next while there are GPUs."""
    lively_period_s: float = 0.25
    """The same while memory is expected back."""
    lively_s: float = 5.0
    """How long after a runner's end that is: drivers free memory a while after it."""
    absent_period_s: float = 30.0
    """The same while there are none. The idle daemon's wake-ups are counted."""
    answer_s: float = 15.0
    """How long a reading may take. The first one initialises every GPU."""
    retry_s: float = 5.0
    """The first pause after a failure; each further one is twice as long."""
    retry_max_s: float = 300.0
    give_up_s: float = 60.0
    """How long GPUs whose driver does not answer are still counted on; a question that is under
    way then is still waited for."""
    event_wait_s: float = 5.0
    """How long one thread waits for events before it comes back to look around."""
    event_gap_s: float = 0.5
    """The least time between two batches of events: they come in floods."""
    event_retry_s: float = 30.0
    """The pause after waiting for events has failed."""
    rediscover_s: float = 30.0
    """The first pause between new sessions for a lost GPU; each further one is twice as long."""
    rediscover_max_s: float = 600.0


class _GrowingPause:
    """Pauses that double up to a limit."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def take(self) -> float:
        pause_s = self._next_s
        self._next_s = min(pause_s * 2, self._max_s)
        return pause_s

    def reset(self) -> None:
        self._next_s = self._first_s


class GpuMonitor:
    """Which GPUs are there, how they are, and what the driver's state is."""

    def __init__(
        self,
        make_probe: Callable[[], GpuProbe],
        *,
        times: MonitorTimes | None = None,
        rules: HealthRules | None = None,
        is_ours: Callable[[DeviceFacts], bool] = lambda _facts: True,
        is_driver_there: Callable[[], bool] = is_driver_there,
        suspend: SuspendWatch | None = None,
        calls: Calls | None = None,
    ) -> None:
        """*make_probe* is called when a driver is first there, in a thread: importing takes time
        and memory that a machine without GPUs need not spend. What *is_ours* denies is watched,
        but not among the devices.
        """
        self._make_probe = make_probe
        self._times = times or MonitorTimes()
        self._is_ours = is_ours
        self._is_driver_there = is_driver_there
        self._suspend = suspend or SuspendWatch()
        self._calls: Calls = calls or ThreadCalls(self.look_again)
        self._book = HealthBook(rules or HealthRules())
        self._probe: GpuProbe | None = None
        self._reading: GpuReading | None = None
        self._status = GpuStatus()
        self._devices: tuple[SeenDevice, ...] = ()
        self._on_seen: OnSeen = lambda _devices: None
        self._needs_session = False
        self._silent_since: float | None = None
        self._retry = _GrowingPause(self._times.retry_s, self._times.retry_max_s)
        self._rediscover = _GrowingPause(self._times.rediscover_s, self._times.rediscover_max_s)
        self._rediscover_at = 0.0
        self._lively_until = 0.0
        self._woken = trio.Event()
        self._has_events = trio.Event()

    # Snapshots

    def devices(self) -> tuple[SeenDevice, ...]:
        """Return the GPUs and MIG instances that are there, as they were last seen."""
        return self._devices

    def sensors(self) -> Mapping[DeviceId, GpuSensors]:
        """Return the numbers of the last reading, also of GPUs that are divided into instances."""
        if self._reading is None:
            return MappingProxyType({})
        return MappingProxyType({gpu.facts.device: gpu.sensors for gpu in self._reading.gpus})

    def records(self) -> Mapping[DeviceId, HealthRecord]:
        """Return what is known of the health of every GPU, also of those that are lost."""
        return self._book.records()

    @property
    def status(self) -> GpuStatus:
        """How asking for GPUs goes."""
        return dataclasses.replace(self._status, n_hung=self._calls.n_hung)

    # Orders

    def reset(self, device: DeviceId) -> bool:
        """Trust a device again at once, and have it looked at anew. False if it is unknown."""
        news = self._book.reset(device, trio.current_time())
        if not news:
            return False
        self._report(news)
        self._publish()
        self._needs_session = True
        self.look_again()
        return True

    def expect_change(self) -> None:
        """Read often for a while: a runner has ended, and its memory is waited for."""
        self._lively_until = trio.current_time() + self._times.lively_s
        self.look_again()

    def look_again(self) -> None:
        """Have the driver asked now instead of at the next turn."""
        self._woken.set()

    # Running

    async def run(
        self, on_seen: OnSeen, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Watch until cancelled; *on_seen* gets the full list at every reading and every event.

        Started when the first question was answered, or when it is clear that it will not be.
        Cancellation: threads that hang are left behind; they end with the process.
        """
        self._on_seen = on_seen
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_events)
            pause_s = await self._look()
            task_status.started()
            while True:
                with trio.move_on_after(pause_s):
                    await self._woken.wait()
                self._woken = trio.Event()
                pause_s = await self._look()

    async def _look(self) -> float:
        """Ask the driver once, hand on what is known then, and return the pause until next time."""
        now = trio.current_time()
        if not self._is_driver_there():
            return self._go_without(DriverState.ABSENT, "there is no NVIDIA driver")
        if self._suspend.slept():
            _log.info("the machine slept: looking at the GPUs anew")
            self._needs_session = True
        if self._book.wants_new_session and now >= self._rediscover_at:
            self._needs_session = True
            self._rediscover_at = now + self._rediscover.take()
        anew = self._needs_session
        try:
            reading = await self._calls.call(
                functools.partial(self._read, anew), within_s=self._times.answer_s
            )
        except CallHung as exc:
            return self._bear(DriverState.HUNG, f"the NVIDIA driver hangs: {exc}")
        except DriverAbsent as exc:
            return self._go_without(DriverState.ABSENT, str(exc))
        except DriverMismatch as exc:
            self._go_without(DriverState.MISMATCHED, str(exc))
            return self._retry.take()
        except ProbeFailed as exc:
            self._needs_session = True
            return self._bear(DriverState.FAILING, str(exc))
        return self._take_in(reading)

    def _read(self, anew: bool) -> GpuReading:
        if self._probe is None:
            self._probe = self._make_probe()
        return self._probe.read(anew=anew)

    def _take_in(self, reading: GpuReading) -> float:
        now = trio.current_time()
        self._needs_session = False
        self._silent_since = None
        self._retry.reset()
        self._reading = reading
        self._report(self._book.observe(reading, now))
        if not self._book.wants_new_session:
            self._rediscover.reset()
            self._rediscover_at = now + self._times.rediscover_s
        self._set_status(DriverState.FOUND, "", reading.driver, now)
        if reading.has_events:
            self._has_events.set()
        self._publish()
        if not reading.gpus and not reading.lost:
            return self._times.absent_period_s
        is_lively = now < self._lively_until
        return self._times.lively_period_s if is_lively else self._times.period_s

    def _go_without(self, state: DriverState, why: str) -> float:
        """There are no GPUs for now, and what comes later starts with a new session."""
        self._needs_session = self._probe is not None
        self._silent_since = None
        self._reading = None
        self._has_events = trio.Event()
        self._set_status(state, why, DriverFacts(), None)
        self._publish()
        return self._times.absent_period_s

    def _bear(self, state: DriverState, why: str) -> float:
        """Go on with the last picture for a while, then without GPUs."""
        now = trio.current_time()
        if self._silent_since is None:
            self._silent_since = now
        given_up_in_s = self._silent_since + self._times.give_up_s - now
        pause_s = self._retry.take()
        if given_up_in_s <= 0:
            self._reading = None
        elif self._reading is not None:
            pause_s = min(pause_s, given_up_in_s)
        self._set_status(state, why, self._status.driver, self._status.read_at)
        self._publish()
        return pause_s

    async def _watch_events(self) -> None:
        times = self._times
        while True:
            await self._has_events.wait()
            try:
                events = await self._calls.call(
                    self._wait, within_s=times.event_wait_s + times.answer_s
                )
            except EventsUnavailable:
                self._has_events = trio.Event()  # Until a reading says that there are some again.
            except (ProbeFailed, CallHung) as exc:
                # A reading tells what is wrong, and whether anything is.
                _log.debug(f"no events from the NVIDIA driver: {exc}")
                self._has_events = trio.Event()
                self.look_again()
                await trio.sleep(times.event_retry_s)
            else:
                if events:
                    self._take_events(events)
                    await trio.sleep(times.event_gap_s)

    def _wait(self) -> tuple[GpuEvent, ...]:
        assert self._probe is not None  # noqa: S101 - it told that there are events
        return self._probe.wait(self._times.event_wait_s)

    def _take_events(self, events: tuple[GpuEvent, ...]) -> None:
        now = trio.current_time()
        for event in events:
            self._report(self._book.take(event, now))
        self._publish()
        self.look_again()

    # The picture

    def _publish(self) -> None:
        gpus = self._reading.gpus if self._reading is not None else ()
        self._devices = tuple(self._seen(gpu) for gpu in gpus if self._takes_models(gpu))
        self._on_seen(self._devices)

    def _takes_models(self, gpu: ProbedGpu) -> bool:
        # A GPU in MIG mode takes none itself, and one without known memory cannot be planned with.
        return not gpu.is_divided and gpu.facts.capacity_bytes > 0 and self._is_ours(gpu.facts)

    def _seen(self, gpu: ProbedGpu) -> SeenDevice:
        facts = gpu.facts
        health, why = self._book.health(facts.device, facts.parent)
        if self._silent_since is not None and health is DeviceHealth.HEALTHY:
            health, why = DeviceHealth.SUSPECT, self._status.why
        used_bytes = gpu.sensors.memory_used_bytes
        return SeenDevice(
            facts=facts,
            # What is not told cannot be planned with.
            used_bytes=facts.capacity_bytes if used_bytes is None else used_bytes,
            by_process=gpu.by_process,
            health=health,
            why=why,
        )

    def _set_status(
        self, state: DriverState, why: str, driver: DriverFacts, read_at: float | None
    ) -> None:
        before = self._status
        self._status = GpuStatus(state=state, why=why, driver=driver, read_at=read_at)
        if state is before.state:
            return
        if state is DriverState.FOUND:
            count = len(self._reading.gpus) if self._reading is not None else 0
            _log.info(f"the NVIDIA driver {driver.driver_version} answers and shows {count} GPUs")
        elif state is DriverState.ABSENT and before.state is DriverState.OFF:
            _log.debug(why)
        else:
            _log.warning(why)

    @staticmethod
    def _report(news: list[HealthNews]) -> None:
        for item in news:
            if item.is_change:
                level = logging.INFO if item.after is DeviceHealth.HEALTHY else logging.WARNING
                _log.log(level, f"GPU {item.device} is {item.after.value}: {item.why}")
            else:
                _log.info(f"GPU {item.device}: {item.why}")
