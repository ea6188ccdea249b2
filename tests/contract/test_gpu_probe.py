"""One suite for everything that shows GPUs: the fake, the real probe on a fake library, a driver.

A machine with a real driver runs its part with `pytest -m gpu tests/contract`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ollamad.gpu.devices import DeviceId, DeviceKind
from ollamad.gpu.monitor import is_driver_there
from ollamad.gpu.nvml import NvmlProbe
from ollamad.gpu.probe import (
    DriverAbsent,
    DriverMismatch,
    EventsUnavailable,
    GpuEvent,
    GpuEventKind,
    GpuProbe,
    GpuReading,
    GpuSensors,
    ProbedGpu,
    ProbeFailed,
)
from ollamad.units import GIB
from tests.fakes.gpus import FakeGpu, FakeGpus, FakeInstance, GpuWorld
from tests.fakes.nvml.library import forget_library, loaded_here
from tests.fakes.nvml.steering import VARIABLE, Steering

WAIT_S = 0.05


@dataclasses.dataclass
class Machine:
    """A probe and, where it can be steered, the world that it shows."""

    probe: GpuProbe
    world: GpuWorld
    show: Callable[[], None]
    """To be called after a change of the world."""

    def read(self, *, anew: bool = False) -> GpuReading:
        self.show()
        return self.probe.read(anew=anew)


@pytest.fixture
def library_machine(
    nvml_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """The real probe and the real pynvml, on the fake library."""
    steering = Steering(tmp_path / "world")
    monkeypatch.setenv(VARIABLE, str(steering.path))
    world = GpuWorld()
    with loaded_here(nvml_folder):
        yield Machine(NvmlProbe(), world, lambda: steering.show(world))


@pytest.fixture(params=["fake", pytest.param("library", marks=pytest.mark.process)])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A machine that can be steered."""
    if request.param == "fake":
        gpus = FakeGpus()
        return Machine(gpus, gpus.world, lambda: None)
    found: Machine = request.getfixturevalue("library_machine")
    return found


@pytest.fixture(
    params=[
        "fake",
        pytest.param("library", marks=pytest.mark.process),
        pytest.param("driver", marks=pytest.mark.gpu),
    ]
)
def probe(request: pytest.FixtureRequest) -> Iterator[GpuProbe]:
    """Any probe, with at least one GPU."""
    if request.param == "driver":
        if not is_driver_there():
            pytest.skip("there is no NVIDIA driver here")
        yield NvmlProbe()
        forget_library()
        return
    if request.param == "library":
        found: Machine = request.getfixturevalue("library_machine")
    else:
        gpus = FakeGpus()
        found = Machine(gpus, gpus.world, lambda: None)
    found.world.gpus = [FakeGpu("GPU-a"), FakeGpu("GPU-b", minor=1)]
    found.show()
    yield found.probe


# What holds for every probe.


def test_every_gpu_tells_its_uuid_index_and_memory(probe: GpuProbe) -> None:
    reading = probe.read(anew=False)

    assert reading.gpus
    assert reading.driver.driver_version
    for gpu in reading.gpus:
        assert gpu.facts.device.startswith(("GPU-", "MIG-"))
        assert gpu.facts.kind is DeviceKind.CUDA
        assert gpu.facts.index is not None
        assert gpu.facts.name
        sensors = gpu.sensors
        assert sensors.memory_total_bytes == gpu.facts.capacity_bytes > 0
        assert sensors.memory_used_bytes is not None
        assert 0 <= sensors.memory_used_bytes <= gpu.facts.capacity_bytes


def test_a_reading_is_of_the_same_session_until_a_new_one_is_asked_for(probe: GpuProbe) -> None:
    first = probe.read(anew=False)
    second = probe.read(anew=False)
    third = probe.read(anew=True)

    assert first.session == second.session < third.session
    assert [gpu.facts for gpu in first.gpus] == [gpu.facts for gpu in third.gpus]


def test_waiting_without_an_event_ends_with_its_timeout(probe: GpuProbe) -> None:
    if not probe.read(anew=False).has_events:
        pytest.skip("this GPU tells no events")
    began = time.monotonic()

    assert probe.wait(WAIT_S) == ()
    assert time.monotonic() - began < 5


def test_waiting_without_a_session_fails(probe: GpuProbe) -> None:
    with pytest.raises(ProbeFailed):
        probe.wait(WAIT_S)


# What holds where the machine can be steered.


def only(reading: GpuReading) -> ProbedGpu:
    [gpu] = reading.gpus
    return gpu


def test_all_fields_arrive(machine: Machine) -> None:
    machine.world.gpus = [
        FakeGpu(
            "GPU-a",
            used_bytes=3 * GIB,
            minor=4,
            corrected=7,
            uncorrected=2,
            throttle=4,
            by_process={100: GIB},
        )
    ]

    reading = machine.read()
    gpu = only(reading)

    assert gpu.facts.device == DeviceId("GPU-a")
    assert gpu.facts.name == "NVIDIA H100"
    assert gpu.facts.capacity_bytes == 80 * GIB
    assert (gpu.facts.index, gpu.facts.minor) == (0, 4)
    assert gpu.facts.pci_bus_id == "00000000:17:00.0"
    assert gpu.facts.compute_capability == (9, 0)
    assert gpu.by_process == {100: GIB}
    assert gpu.sensors == GpuSensors(
        memory_total_bytes=80 * GIB,
        memory_used_bytes=3 * GIB,
        memory_free_bytes=77 * GIB,
        utilisation=0.5,
        memory_utilisation=0.5,
        temperature_c=40,
        slowdown_c=87,
        shutdown_c=92,
        power_w=120,
        power_limit_w=700,
        clock_sm_mhz=1980,
        clock_sm_max_mhz=1980,
        clock_memory_mhz=2619,
        clock_memory_max_mhz=2619,
        ecc_corrected=7,
        ecc_uncorrected=2,
        persistence=True,
        throttle=("power cap",),
    )
    assert reading.driver.driver_version == "570.86.10"
    assert reading.driver.cuda_version == (12, 8)


def test_what_a_gpu_does_not_support_is_none_and_spoils_nothing_else(machine: Machine) -> None:
    machine.world.gpus = [
        FakeGpu(
            "GPU-a",
            total_bytes=None,
            minor=None,
            busy_percent=None,
            temperature_c=None,
            slowdown_c=None,
            shutdown_c=None,
            power_mw=None,
            power_limit_mw=None,
            clock_sm_mhz=None,
            clock_memory_mhz=None,
            corrected=None,
            uncorrected=None,
            throttle=None,
            compute_capability=None,
            pci_bus_id=None,
            persistence=None,
            is_divided=None,
            tells_events=False,
        )
    ]
    machine.world.cuda = None

    reading = machine.read()

    assert only(reading).sensors == GpuSensors()
    assert only(reading).facts.capacity_bytes == 0
    assert only(reading).facts.compute_capability is None
    assert reading.driver.cuda_version is None
    assert not reading.has_events
    with pytest.raises(EventsUnavailable):
        machine.probe.wait(WAIT_S)


def test_a_process_that_computes_and_draws_is_counted_once(machine: Machine) -> None:
    machine.world.gpus = [
        FakeGpu("GPU-a", by_process={100: GIB, 200: 2 * GIB}, drawing={100: GIB, 300: 3 * GIB})
    ]

    assert only(machine.read()).by_process == {100: GIB, 200: 2 * GIB, 300: 3 * GIB}


def test_memory_that_changes_is_seen_at_the_next_reading(machine: Machine) -> None:
    machine.world.gpus = [FakeGpu("GPU-a", used_bytes=GIB)]
    machine.read()
    machine.world.gpus[0].used_bytes = 5 * GIB

    assert only(machine.read()).sensors.memory_used_bytes == 5 * GIB


def test_instances_are_told_beside_the_gpu_that_they_are_parts_of(machine: Machine) -> None:
    instances = [
        FakeInstance("MIG-a", gi=7, by_process={100: GIB}),
        FakeInstance("MIG-b", gi=8, used_bytes=GIB),
    ]
    machine.world.gpus = [
        FakeGpu("GPU-a"),
        FakeGpu("GPU-b", is_divided=True, instances=instances),
    ]

    whole, divided, first, second = machine.read().gpus

    assert not whole.is_divided
    assert divided.is_divided
    assert divided.facts.parent is None
    assert [first.facts.device, second.facts.device] == ["MIG-a", "MIG-b"]
    assert first.facts.parent == second.facts.parent == divided.facts.device
    assert first.facts.index == divided.facts.index == 1
    assert first.facts.capacity_bytes == 10 * GIB
    assert first.by_process == {100: GIB}
    assert second.sensors.memory_used_bytes == GIB
    assert not first.is_divided


def test_instances_may_come_and_go_within_a_session(machine: Machine) -> None:
    machine.world.gpus = [FakeGpu("GPU-a", is_divided=True)]
    assert len(machine.read().gpus) == 1

    machine.world.gpus[0].instances = [FakeInstance("MIG-a", gi=1)]
    assert len(machine.read().gpus) == 2

    machine.world.gpus[0].instances = []
    assert len(machine.read().gpus) == 1


@pytest.mark.parametrize("error", [15, 16], ids=["lost", "needs-a-reset"])
def test_a_lost_gpu_is_told_by_name_and_spoils_no_other(machine: Machine, error: int) -> None:
    machine.world.gpus = [FakeGpu("GPU-a"), FakeGpu("GPU-b")]
    machine.read()
    machine.world.gpus[0].error = error

    reading = machine.read()
    [lost] = reading.lost

    assert only(reading).facts.device == DeviceId("GPU-b")
    assert (lost.device, lost.index) == (DeviceId("GPU-a"), 0)
    assert lost.why


def test_a_gpu_that_was_always_lost_has_no_name(machine: Machine) -> None:
    machine.world.gpus = [FakeGpu("GPU-a", error=15), FakeGpu("GPU-b")]

    [lost] = machine.read().lost

    assert (lost.device, lost.index) == (None, 0)


def test_events_are_told_with_their_gpu_and_number(machine: Machine) -> None:
    world = machine.world
    world.gpus = [FakeGpu("GPU-a"), FakeGpu("GPU-b")]
    world.xid(13)
    machine.read()
    world.xid(79, gpu=1)
    world.events.append(GpuEvent(kind=GpuEventKind.ECC_DOUBLE, device=DeviceId("GPU-a")))
    world.events.append(GpuEvent(kind=GpuEventKind.ECC_SINGLE, device=DeviceId("GPU-a")))
    machine.show()

    events = machine.probe.wait(WAIT_S)

    # What happened before the session is not told.
    assert events == tuple(world.events[1:])
    assert machine.probe.wait(WAIT_S) == ()


def test_an_event_names_its_instance(machine: Machine) -> None:
    instances = [
        FakeInstance("MIG-a", gi=7),
        FakeInstance("MIG-b", gi=8, ci=0),
        FakeInstance("MIG-c", gi=8, ci=1),
    ]
    machine.world.gpus = [FakeGpu("GPU-a", is_divided=True, instances=instances)]
    machine.read()
    for number in range(3):
        machine.world.xid(94, instance=number)
    machine.show()

    events = machine.probe.wait(WAIT_S)

    assert {event.device for event in events} == {"GPU-a"}
    assert [event.instance for event in events] == ["MIG-a", "MIG-b", "MIG-c"]


def test_a_machine_without_gpus_has_a_driver_that_says_so(machine: Machine) -> None:
    reading = machine.read()

    assert reading.gpus == ()
    assert reading.driver.driver_version == "570.86.10"


def test_a_driver_may_come_late_go_and_come_back(machine: Machine) -> None:
    world = machine.world
    world.gpus = [FakeGpu("GPU-a")]
    world.is_loaded = False
    with pytest.raises(DriverAbsent):
        machine.read()

    world.is_loaded = True
    first = machine.read()
    world.is_loaded = False
    with pytest.raises(DriverAbsent):
        machine.read()

    world.is_loaded = True
    second = machine.read(anew=True)

    assert only(first).facts == only(second).facts
    assert second.session > first.session


def test_a_driver_of_another_version_is_told_apart_from_none(machine: Machine) -> None:
    machine.world.nvml_version = "1.2.3"

    with pytest.raises(DriverMismatch, match="different versions"):
        machine.read()

    machine.world.nvml_version = "13.615.71"
    assert machine.read(anew=True).gpus == ()
