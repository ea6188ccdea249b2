"""The real probe, the real pynvml and real threads, on a driver library that is a fake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from ollamad.gpu.nvml import NvmlProbe
from ollamad.gpu.probe import GpuReading, ProbeFailed
from ollamad.units import GIB
from tests.fakes.gpus import FakeGpu, FakeInstance, GpuWorld
from tests.fakes.nvml.library import build, loaded_here
from tests.fakes.nvml.steering import VARIABLE, Steering
from tests.process.daemonprocess import DaemonProcess
from tests.process.gpuwatcher import SLEPT

pytestmark = pytest.mark.process

PATIENCE_S = 60.0
STANDSTILL_MAX_S = 2.0
"""A loop that hangs with the driver stands still for ever; one on a busy machine for a moment."""

Line = Mapping[str, Any]


class Watcher:
    """A child that watches GPUs; see `tests.process.gpuwatcher`."""

    def __init__(self, folder: Path, libraries: Path) -> None:
        self.world = GpuWorld(gpus=[FakeGpu("GPU-a"), FakeGpu("GPU-b", minor=1)])
        self.libraries = libraries
        self._steering = Steering(folder / "world")
        self._slept = folder / "slept"
        self.sleep(0)
        self._lines: list[Line] = []
        self._n_passed = 0
        self._changed = threading.Condition()
        self._environ = {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            VARIABLE: str(self._steering.path),
            SLEPT: str(self._slept),
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.gpuwatcher"],
            env=self._environ,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self._process])
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self._lines.append(json.loads(line))
                self._changed.notify_all()

    def show(self, *more: str) -> None:
        """Have the driver tell what the world is now."""
        self._steering.show(self.world, *more)

    def sleep(self, seconds: float) -> None:
        """Have the machine slept so long in all."""
        fresh = self._slept.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self._slept)

    def wait_for(self, wanted: Callable[[Line], bool]) -> Line:
        """Return the first line that is *wanted* after the one that was returned last."""
        with self._changed:
            ends_at = time.monotonic() + PATIENCE_S
            while True:
                for line in self._lines[self._n_passed :]:
                    self._n_passed += 1
                    if wanted(line):
                        return line
                in_time = self._changed.wait(ends_at - time.monotonic())
                assert in_time, self._lines[-3:]

    def wait_for_devices(self, **healths: str) -> Line:
        """Wait until exactly these are there, and so healthy."""
        wanted = {name.replace("_", "-"): health for name, health in healths.items()}
        return self.wait_for(lambda line: line["devices"] == wanted)

    @property
    def lines(self) -> list[Line]:
        with self._changed:
            return list(self._lines)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._reader.join(PATIENCE_S)
            assert self._process.stdout is not None
            self._process.stdout.close()


@pytest.fixture
def watcher(tmp_path: Path, nvml_folder: Path) -> Iterator[Watcher]:
    """A watcher that is not started yet, with two GPUs that are not shown yet."""
    child = Watcher(tmp_path, nvml_folder)
    yield child
    child.close()


@pytest.fixture
def bare_watcher(tmp_path: Path) -> Iterator[Watcher]:
    """One in whose library path there is no library yet."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    child = Watcher(tmp_path, libraries)
    yield child
    child.close()


def test_gpu_absent_at_boot_is_found_later(bare_watcher: Watcher) -> None:
    bare_watcher.start()
    line = bare_watcher.wait_for(lambda line: line["state"] == "absent")
    assert "Library Not Found" in line["why"]

    build(bare_watcher.libraries)
    line = bare_watcher.wait_for(lambda line: "Not Loaded" in line["why"])
    assert line["state"] == "absent"

    bare_watcher.show()
    line = bare_watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")
    assert line["state"] == "found"
    assert line["driver"] == "570.86.10"
    assert not line["has_cuda"]


def test_resume_reprobes_gpu(watcher: Watcher) -> None:
    watcher.show()
    watcher.start()
    line = watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")
    assert line["session"] == 1

    watcher.sleep(3600)
    line = watcher.wait_for(lambda line: line["session"] == 2)

    assert line["devices"] == {"GPU-a": "healthy", "GPU-b": "healthy"}


def test_xid_79_quarantines_only_that_gpu(watcher: Watcher) -> None:
    watcher.show()
    watcher.start()
    watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")

    watcher.world.xid(79)
    watcher.world.gpus[0].error = 15
    watcher.show()
    watcher.wait_for_devices(GPU_b="healthy")

    watcher.world.gpus[0].error = 0
    watcher.show()
    watcher.wait_for_devices(GPU_a="recovering", GPU_b="healthy")
    watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")
    assert all(line["devices"]["GPU-b"] == "healthy" for line in watcher.lines if line["devices"])


def test_xid_13_31_43_45_do_not(watcher: Watcher) -> None:
    watcher.show()
    watcher.start()
    watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")

    for xid in (13, 31, 43, 45):
        watcher.world.xid(xid)
        watcher.show()
        note = f"Xid {xid}:"
        watcher.wait_for(lambda line, note=note: note in line["notes"]["GPU-a"])  # type: ignore[misc]

    assert all(set(line["devices"].values()) <= {"healthy"} for line in watcher.lines)


def test_mig_instances_are_separate_devices(watcher: Watcher) -> None:
    watcher.world.gpus[1].is_divided = True
    watcher.world.gpus[1].instances = [
        FakeInstance("MIG-a", gi=3, used_bytes=GIB),
        FakeInstance("MIG-b", gi=4),
    ]
    watcher.show()
    watcher.start()

    line = watcher.wait_for_devices(GPU_a="healthy", MIG_a="healthy", MIG_b="healthy")
    assert line["parents"] == {"GPU-a": None, "MIG-a": "GPU-b", "MIG-b": "GPU-b"}
    assert (line["used"]["MIG-a"], line["used"]["MIG-b"]) == (GIB, 0)

    watcher.world.xid(94, gpu=1, instance=0)
    watcher.show()
    watcher.wait_for_devices(GPU_a="healthy", MIG_a="quarantined", MIG_b="healthy")


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryInfo", "nvmlEventSetWait_v2"])
def test_a_driver_that_hangs_costs_a_thread_and_not_the_loop(watcher: Watcher, call: str) -> None:
    watcher.show()
    watcher.start()
    watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")

    watcher.show(f"hang call={call}")
    line = watcher.wait_for(lambda line: line["n_hung"] > 0)
    if call == "nvmlDeviceGetMemoryInfo":
        watcher.wait_for_devices(GPU_a="suspect", GPU_b="suspect")
        line = watcher.wait_for_devices()
        assert line["state"] == "hung"
    assert line["stood_still_s"] < STANDSTILL_MAX_S

    watcher.show()
    watcher.wait_for(lambda line: line["n_hung"] == 0)
    line = watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")
    assert line["state"] == "found"
    assert line["stood_still_s"] < STANDSTILL_MAX_S


def test_a_driver_that_is_slow_is_not_taken_for_hung(watcher: Watcher) -> None:
    watcher.world.gpus[0].used_bytes = 2 * GIB
    watcher.show("lag call=nvmlDeviceGetMemoryInfo ms=50")
    watcher.start()

    line = watcher.wait_for(lambda line: line["used"].get("GPU-a") == 2 * GIB)

    assert line["n_hung"] == 0
    assert line["stood_still_s"] < STANDSTILL_MAX_S


def test_a_library_that_was_upgraded_under_us_is_loaded_anew(bare_watcher: Watcher) -> None:
    build(bare_watcher.libraries, "1.0")
    bare_watcher.world.nvml_version = "1.0"
    bare_watcher.show()
    bare_watcher.start()
    bare_watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")

    # The old driver is unloaded, and the new one loaded before its library is there.
    bare_watcher.world.is_loaded = False
    bare_watcher.show()
    bare_watcher.wait_for_devices()
    bare_watcher.world.is_loaded = True
    bare_watcher.world.nvml_version = "2.0"
    bare_watcher.show()
    bare_watcher.wait_for(lambda line: line["state"] == "mismatched")

    build(bare_watcher.libraries, "2.0")
    bare_watcher.wait_for_devices(GPU_a="healthy", GPU_b="healthy")


class GpuDaemon(DaemonProcess):
    """A real daemon on a machine with a fake driver."""

    program = ("tests.process.gpudaemon", "serve", "--port", "0")


def test_hung_nvml_does_not_hang_the_daemon(tmp_path: Path, nvml_folder: Path) -> None:
    """The library hangs inside a call, in a thread: requests are answered, and it comes back."""
    world = GpuWorld(gpus=[FakeGpu("GPU-a")])
    steering = Steering(tmp_path / "world")
    steering.show(world)
    config = tmp_path / "ollamad.toml"
    config.write_text("[gpu]\nmemory_period_s = 0.1\nanswer_timeout_s = 0.5\n")
    environ = {"LD_LIBRARY_PATH": str(nvml_folder), VARIABLE: str(steering.path)}
    daemon = GpuDaemon(tmp_path, environ, "--config", str(config))
    try:
        [listening] = [r for r in daemon.records if r["message"].startswith("Listening on")]
        assert "NVIDIA H100" in json.dumps(listening)
        n_before = len(daemon.records)

        steering.show(world, "hang call=nvmlDeviceGetMemoryInfo")
        slowest_s = 0.0
        with httpx.Client(base_url=daemon.url, timeout=PATIENCE_S) as web:
            while not any("hangs" in record["message"] for record in daemon.records[n_before:]):
                began = time.monotonic()
                web.get("/api/tags").raise_for_status()
                web.get("/api/ps").raise_for_status()
                slowest_s = max(slowest_s, time.monotonic() - began)
        assert slowest_s < STANDSTILL_MAX_S
        n_hung = len(daemon.records)

        steering.show(world)
        daemon.wait_for_log(lambda r: "answers and shows 1 GPU" in r["message"], after=n_hung)

        # And it stops as cleanly while the driver hangs as at any other time.
        n_before = len(daemon.records)
        steering.show(world, "hang call=nvmlDeviceGetMemoryInfo")
        daemon.wait_for_log(lambda r: "hangs" in r["message"], after=n_before)
    finally:
        status = daemon.stop()
    assert status == 0


# The probe alone, where the library has what the fake in memory has not.


@pytest.fixture
def steering(
    tmp_path: Path, nvml_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Steering]:
    found = Steering(tmp_path / "world")
    monkeypatch.setenv(VARIABLE, str(found.path))
    with loaded_here(nvml_folder):
        yield found


def a_reading(steering: Steering, *lines: str, gpu: FakeGpu | None = None) -> GpuReading:
    steering.show(GpuWorld(gpus=[gpu or FakeGpu("GPU-a", by_process={7: GIB})]), *lines)
    return NvmlProbe().read(anew=False)


def test_an_older_driver_is_asked_for_processes_in_the_older_way(steering: Steering) -> None:
    reading = a_reading(steering, "error call=nvmlDeviceGetComputeRunningProcesses_v3 code=13")

    assert reading.gpus[0].by_process == {7: GIB}


def test_one_field_that_fails_costs_that_field(steering: Steering) -> None:
    reading = a_reading(steering, "error call=nvmlDeviceGetPowerUsage code=999")

    assert reading.gpus[0].sensors.power_w is None
    assert reading.gpus[0].sensors.temperature_c == 40


def test_a_gpu_stays_as_large_as_it_was_when_its_memory_is_not_told_once(
    steering: Steering,
) -> None:
    world = GpuWorld(gpus=[FakeGpu("GPU-a")])
    steering.show(world)
    probe = NvmlProbe()
    before = probe.read(anew=False)
    steering.show(world, "error call=nvmlDeviceGetMemoryInfo code=999")

    after = probe.read(anew=False)

    assert after.gpus[0].facts == before.gpus[0].facts
    assert after.gpus[0].sensors.memory_used_bytes is None


def test_a_gpu_that_fails_altogether_is_told_as_lost_with_the_drivers_words(
    steering: Steering,
) -> None:
    reading = a_reading(steering, "error call=nvmlDeviceGetHandleByIndex_v2 code=999")

    assert reading.gpus == ()
    assert "Unknown Error" in reading.lost[0].why


@pytest.mark.parametrize("code", [3, 4, 999])
def test_a_gpu_whose_events_may_not_be_watched_is_still_a_gpu(
    steering: Steering, code: int
) -> None:
    reading = a_reading(steering, f"error call=nvmlDeviceRegisterEvents code={code}")

    assert [gpu.facts.device for gpu in reading.gpus] == ["GPU-a"]
    assert not reading.has_events


@pytest.mark.parametrize(("ci", "named"), [("ci=9", None), ("", None), ("ci=1", "MIG-b")])
def test_an_event_that_may_mean_several_instances_names_none(
    steering: Steering, ci: str, named: str | None
) -> None:
    instances = [FakeInstance("MIG-a", gi=1, ci=0), FakeInstance("MIG-b", gi=1, ci=1)]
    world = GpuWorld(gpus=[FakeGpu("GPU-a", is_divided=True, instances=instances)])
    steering.show(world)
    probe = NvmlProbe()
    probe.read(anew=False)
    steering.show(world, f"event seq=1 gpu=0 type=8 data=94 gi=1 {ci}")

    [event] = probe.wait(0)

    assert event.device == "GPU-a"
    assert event.instance == named


def test_a_name_that_is_no_text_costs_only_the_name(steering: Steering) -> None:
    steering.show(GpuWorld(gpus=[FakeGpu("GPU-a")]))
    garbled = steering.path.read_bytes().replace(b"NVIDIA_H100", b"\xff\xfe")
    steering.path.write_bytes(garbled)

    reading = NvmlProbe().read(anew=False)

    assert reading.gpus[0].facts.name == "GPU"


def test_a_driver_that_may_not_be_asked_says_what_helps(steering: Steering) -> None:
    with pytest.raises(ProbeFailed, match="restart the service"):
        a_reading(steering, "error call=nvmlInitWithFlags code=4")


def test_a_driver_that_tells_no_number_of_gpus_fails(steering: Steering) -> None:
    with pytest.raises(ProbeFailed, match="Unknown Error"):
        a_reading(steering, "error call=nvmlDeviceGetCount_v2 code=999")


def test_a_session_that_hangs_in_one_thread_is_not_renewed_under_it(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ollamad.gpu.nvml.RENEW_PATIENCE_S", 0.05)
    world = GpuWorld(gpus=[FakeGpu("GPU-a")])
    steering.show(world)
    probe = NvmlProbe()
    probe.read(anew=False)
    steering.show(world, "hang call=nvmlDeviceGetTemperature")
    sessions: list[int] = []
    hung = threading.Thread(target=lambda: sessions.append(probe.read(anew=False).session))
    hung.start()
    try:
        while True:  # Until the thread is inside.
            try:
                steering.show(world, "hang call=nvmlDeviceGetTemperature")
                probe.read(anew=True)
            except ProbeFailed as exc:
                assert "has not returned" in str(exc)  # noqa: PT017 - the loop is the point
                break
    finally:
        steering.show(world)
        hung.join(PATIENCE_S)

    assert sessions == [1]
    assert probe.read(anew=True).session == 2
