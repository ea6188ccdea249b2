"""Stories of GPUs that come, go, fail and hang, in virtual time."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from ollamad.gpu.devices import DeviceFacts, DeviceHealth, DeviceId, SeenDevice
from ollamad.gpu.hangproof import CallHung
from ollamad.gpu.monitor import DriverState, GpuMonitor, MonitorTimes
from ollamad.gpu.probe import GpuReading
from ollamad.gpu.suspend import SuspendWatch
from tests.fakes.gpus import FakeGpu, FakeGpus, FakeInstance, GpuWorld, VirtualCalls

H = DeviceHealth
A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
TIMES = MonitorTimes()


@dataclasses.dataclass
class Kernel:
    """What Linux says, without asking the driver."""

    has_signs: bool = True
    """Whether there is any sign of a driver."""
    slept_s: float = 0.0


@dataclasses.dataclass
class Bench:
    """A running monitor and the machine that it watches."""

    kernel: Kernel
    world: GpuWorld
    gpus: FakeGpus
    calls: VirtualCalls
    monitor: GpuMonitor
    seen: list[tuple[float, tuple[SeenDevice, ...]]] = dataclasses.field(default_factory=list)
    _heard: trio.Event = dataclasses.field(default_factory=trio.Event)

    def on_seen(self, devices: tuple[SeenDevice, ...]) -> None:
        assert devices == self.monitor.devices()
        self.seen.append((trio.current_time(), devices))
        self._heard.set()
        self._heard = trio.Event()

    async def until(self, is_so: Callable[[], object]) -> float:
        """Wait for a fact, and return how long that took."""
        began = trio.current_time()
        while not is_so():
            await self._heard.wait()
        return trio.current_time() - began

    def state(self) -> DriverState:
        return self.monitor.status.state

    def names(self) -> list[str]:
        return [device.facts.device for device in self.monitor.devices()]

    def health(self, device: DeviceId) -> DeviceHealth | None:
        for seen in self.monitor.devices():
            if seen.facts.device == device:
                return seen.health
        return None

    def xid(self, number: int, gpu: int = 0, instance: int | None = None) -> None:
        self.world.xid(number, gpu, instance)
        self.calls.changed()

    def hang(self, *, on: bool) -> None:
        self.world.is_hung = on
        self.calls.changed()


@contextlib.asynccontextmanager
async def a_bench(
    *gpus: FakeGpu,
    has_signs: bool = True,
    is_ours: Callable[[DeviceFacts], bool] = lambda _facts: True,
) -> AsyncIterator[Bench]:
    """Run a monitor over a machine with these GPUs, once it has looked for the first time."""
    kernel = Kernel(has_signs=has_signs)
    world = GpuWorld(gpus=list(gpus))
    probe = FakeGpus(world)
    calls = VirtualCalls(probe)
    monitor = GpuMonitor(
        lambda: probe,
        calls=calls,
        is_ours=is_ours,
        is_driver_there=lambda: kernel.has_signs,
        suspend=SuspendWatch(lambda: kernel.slept_s),
    )
    calls.on_return = monitor.look_again
    bench = Bench(kernel, world, probe, calls, monitor)
    async with trio.open_nursery() as nursery:
        await nursery.start(monitor.run, bench.on_seen)
        yield bench
        nursery.cancel_scope.cancel()


def two_gpus() -> tuple[FakeGpu, FakeGpu]:
    return FakeGpu(A), FakeGpu(B)


async def test_gpu_absent_at_boot_is_found_later(autojump_clock: trio.abc.Clock) -> None:
    async with a_bench(*two_gpus(), has_signs=False) as bench:
        assert bench.names() == []
        assert bench.state() is DriverState.ABSENT
        await trio.sleep(3600)
        assert bench.gpus.n_readings == 0  # Not even the library was loaded.

        bench.kernel.has_signs = True
        waited_s = await bench.until(bench.names)

        assert bench.names() == [A, B]
        assert waited_s <= TIMES.absent_period_s
        assert bench.state() is DriverState.FOUND
        assert bench.monitor.status.driver.driver_version == "570.86.10"


async def test_a_machine_without_a_driver_is_looked_at_rarely(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(has_signs=False) as bench:
        await trio.sleep(3600)

        assert len(bench.seen) <= 1 + 3600 / TIMES.absent_period_s


async def test_a_driver_that_is_unloaded_and_loaded_again_starts_anew(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.world.is_loaded = False
        waited_s = await bench.until(lambda: not bench.names())
        assert waited_s <= TIMES.period_s
        assert bench.state() is DriverState.ABSENT

        bench.world.is_loaded = True
        bench.world.driver_version = "580.1"
        await bench.until(bench.names)

        # Nobody blames a GPU for its driver: it is as healthy as before.
        assert [device.health for device in bench.monitor.devices()] == [H.HEALTHY, H.HEALTHY]
        assert bench.monitor.status.driver.driver_version == "580.1"


async def test_a_driver_of_another_version_is_said_and_tried_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.world.is_loaded = False
        await bench.until(lambda: not bench.names())
        bench.world.is_loaded = True
        bench.world.nvml_version = "1.2.3"
        await bench.until(lambda: bench.state() is DriverState.MISMATCHED)
        assert "different versions" in bench.monitor.status.why

        bench.world.nvml_version = GpuWorld().nvml_version
        await bench.until(bench.names)


async def test_resume_reprobes_gpu(autojump_clock: trio.abc.Clock) -> None:
    async with a_bench(*two_gpus()) as bench:
        readings: list[GpuReading] = []
        bench.world.gpus[1].error = 15  # Its session did not survive the sleep.

        def read(*, anew: bool, read: Callable[..., GpuReading] = bench.gpus.read) -> GpuReading:
            if anew:
                bench.world.gpus[1].error = 0
            readings.append(read(anew=anew))
            return readings[-1]

        bench.gpus.read = read  # type: ignore[method-assign]
        bench.kernel.slept_s += 8 * 3600
        await bench.until(lambda: bool(readings))

        assert trio.current_time() <= TIMES.period_s
        assert readings[0].session == 2
        assert [gpu.facts.device for gpu in readings[0].gpus] == [A, B]
        await trio.sleep(10)
        assert readings[-1].session == 2  # Once is enough.


async def test_xid_79_quarantines_only_that_gpu(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with a_bench(*two_gpus()) as bench:
        await trio.sleep(7)
        bench.xid(79)

        waited_s = await bench.until(lambda: bench.health(A) is H.QUARANTINED)

        assert waited_s == 0  # Reported, not found at the next reading.
        assert bench.health(B) is H.HEALTHY
        [line] = [text for text in caplog.messages if "quarantined" in text]
        assert A in line
        assert "Xid 79" in line

        # Looked for with a new session, and then watched before it is trusted.
        recovering_s = await bench.until(lambda: bench.health(A) is H.RECOVERING)
        assert recovering_s <= TIMES.rediscover_s + TIMES.period_s
        healthy_s = await bench.until(lambda: bench.health(A) is H.HEALTHY)
        assert 300 <= healthy_s <= 300 + TIMES.period_s


async def test_xid_13_31_43_45_do_not(autojump_clock: trio.abc.Clock) -> None:
    async with a_bench(*two_gpus()) as bench:
        for xid in (13, 31, 43, 45):
            bench.xid(xid)
            await trio.sleep(10)

            note = bench.monitor.records()[A].last_note
            assert f"Xid {xid}" in note
            assert bench.health(A) is H.HEALTHY
            assert bench.health(B) is H.HEALTHY
        assert all(device.health is H.HEALTHY for _, devices in bench.seen for device in devices)


async def test_a_gpu_that_is_lost_without_a_word_is_missed_at_the_next_reading(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.world.gpus[0].error = 15
        waited_s = await bench.until(lambda: bench.names() == [B])

        assert waited_s <= TIMES.period_s
        assert bench.monitor.records()[A].health is H.QUARANTINED

        await trio.sleep(3600)
        n_sessions = bench.gpus.read(anew=False).session
        assert n_sessions <= 12  # A driver is not started anew all the time for one lost GPU.

        bench.world.gpus[0].error = 0
        await bench.until(lambda: bench.health(A) is H.RECOVERING)


async def test_a_reset_brings_a_gpu_back_at_once(autojump_clock: trio.abc.Clock) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.xid(48)
        await bench.until(lambda: bench.health(A) is H.QUARANTINED)

        assert bench.monitor.reset(A)

        assert bench.health(A) is H.HEALTHY
        assert bench.seen[-1][1] == bench.monitor.devices()


async def test_nobody_can_reset_a_gpu_that_was_never_there(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        assert not bench.monitor.reset(DeviceId("GPU-c"))
        assert DeviceId("GPU-c") not in bench.monitor.records()


async def test_memory_that_is_expected_back_is_looked_for_often_for_a_while(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.monitor.expect_change()
        await trio.sleep(TIMES.lively_s)
        n_lively = len(bench.seen)
        await trio.sleep(TIMES.lively_s * 2)

        assert n_lively >= TIMES.lively_s / TIMES.lively_period_s
        assert len(bench.seen) - n_lively <= 2 * TIMES.lively_s / TIMES.period_s + 1


async def test_mig_instances_are_separate_devices(autojump_clock: trio.abc.Clock) -> None:
    instances = [
        FakeInstance("MIG-a", gi=1, used_bytes=1, by_process={100: 1}),
        FakeInstance("MIG-b", gi=2),
    ]
    divided = FakeGpu(B, is_divided=True, instances=instances)
    async with a_bench(FakeGpu(A), divided) as bench:
        assert bench.names() == [A, "MIG-a", "MIG-b"]  # The divided GPU takes nothing itself.
        _, first, second = bench.monitor.devices()
        assert first.facts.parent == second.facts.parent == B
        assert (first.used_bytes, second.used_bytes) == (1, 0)
        assert (first.by_process, second.by_process) == ({100: 1}, {})
        assert B in bench.monitor.sensors()  # But it is what gets hot.

        bench.xid(94, gpu=1, instance=0)
        await bench.until(lambda: bench.health(DeviceId("MIG-a")) is H.QUARANTINED)
        assert bench.health(DeviceId("MIG-b")) is H.HEALTHY

        bench.xid(48, gpu=1, instance=0)
        await bench.until(lambda: bench.health(DeviceId("MIG-b")) is H.QUARANTINED)
        assert bench.health(A) is H.HEALTHY


async def test_a_driver_that_hangs_leaves_the_gpus_suspect_and_then_nowhere(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.hang(on=True)

        await bench.until(lambda: bench.state() is DriverState.HUNG)
        assert [device.health for device in bench.monitor.devices()] == [H.SUSPECT, H.SUSPECT]
        assert "hangs" in bench.monitor.devices()[0].why
        given_up_s = await bench.until(lambda: not bench.names())
        assert TIMES.give_up_s <= given_up_s <= TIMES.give_up_s + TIMES.answer_s

        await trio.sleep(3600)
        assert bench.monitor.status.n_hung <= 20
        bench.hang(on=False)
        back_s = await bench.until(bench.names)

        assert back_s == 0  # The call that hung says so by returning.
        assert [device.health for device in bench.monitor.devices()] == [H.HEALTHY, H.HEALTHY]


async def test_a_driver_that_hangs_at_the_start_does_not_hold_the_start_up_for_long(
    autojump_clock: trio.abc.Clock,
) -> None:
    world = GpuWorld(gpus=[FakeGpu(A)], is_hung=True)
    probe = FakeGpus(world)
    monitor = GpuMonitor(lambda: probe, calls=VirtualCalls(probe), is_driver_there=lambda: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(monitor.run, lambda _devices: None)

        assert trio.current_time() == TIMES.answer_s
        assert monitor.devices() == ()
        nursery.cancel_scope.cancel()


async def test_a_driver_that_fails_is_asked_anew_at_growing_intervals(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        asked: list[tuple[float, bool]] = []

        def fail(*, anew: bool) -> GpuReading:
            asked.append((trio.current_time(), anew))
            raise CallHung("as it might be")

        bench.gpus.read = fail  # type: ignore[method-assign]
        began = trio.current_time()
        await trio.sleep(3600)

        pauses = [after - before for (before, _), (after, _) in itertools.pairwise(asked)]
        assert pauses[0] == TIMES.retry_s
        assert max(pauses) == TIMES.retry_max_s
        assert len(asked) < 30
        assert asked[0][0] - began <= TIMES.period_s


async def test_a_flood_of_events_does_not_make_a_flood_of_readings(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus()) as bench:
        before = bench.gpus.n_readings
        began = trio.current_time()
        while trio.current_time() - began < 10:
            bench.xid(31)
            await trio.sleep(0.01)

        assert bench.gpus.n_readings - before <= 10 / TIMES.event_gap_s + 10 / TIMES.period_s + 2


async def test_what_others_use_is_told_at_every_reading(autojump_clock: trio.abc.Clock) -> None:
    async with a_bench(*two_gpus()) as bench:
        bench.world.gpus[0].used_bytes = 123
        bench.world.gpus[0].by_process = {7: 100}
        waited_s = await bench.until(lambda: bench.monitor.devices()[0].used_bytes == 123)

        assert waited_s <= TIMES.period_s
        assert bench.monitor.devices()[0].by_process == {7: 100}


async def test_a_gpu_that_does_not_tell_its_memory_takes_no_models(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(FakeGpu(A, total_bytes=None), FakeGpu(B)) as bench:
        assert bench.names() == [B]
        assert A in bench.monitor.sensors()


async def test_a_gpu_that_is_not_ours_is_watched_and_never_used(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(*two_gpus(), is_ours=lambda facts: facts.device != A) as bench:
        assert bench.names() == [B]
        assert A in bench.monitor.sensors()


async def test_a_gpu_that_tells_no_events_is_watched_by_its_readings(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with a_bench(FakeGpu(A, tells_events=False)) as bench:
        bench.world.gpus[0].uncorrected = 3
        waited_s = await bench.until(lambda: bench.health(A) is H.QUARANTINED)

        assert waited_s <= TIMES.period_s
