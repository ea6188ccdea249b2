"""A child that watches GPUs with the real probe, in real threads, and tells what it sees.

It prints a line of JSON whenever the monitor hands something on. Its times are short, so that a
test need not wait; what takes how long is told in virtual time, in `tests/scenario/test_gpus.py`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import trio

from ollamad.gpu.devices import SeenDevice
from ollamad.gpu.health import HealthRules
from ollamad.gpu.monitor import GpuMonitor, MonitorTimes
from ollamad.gpu.nvml import NvmlProbe
from ollamad.gpu.suspend import SuspendWatch

SLEPT = "FAKE_SLEPT"
"""Names a file with the seconds that the machine has slept."""

TIMES = MonitorTimes(
    period_s=0.02,
    absent_period_s=0.02,
    answer_s=0.5,
    retry_s=0.02,
    retry_max_s=0.1,
    give_up_s=1.0,
    event_wait_s=0.2,
    event_gap_s=0.01,
    event_retry_s=0.02,
    rediscover_s=0.02,
    rediscover_max_s=0.1,
)
RULES = HealthRules(quarantine_s=0.3, recovery_s=0.3, suspicion_s=0.3)
PULSE_S = 0.005


class Pulse:
    """How long Trio's loop ever stood still, beyond what the pulse sleeps."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            before = trio.current_time()
            await trio.sleep(PULSE_S)
            self.longest_s = max(self.longest_s, trio.current_time() - before - PULSE_S)


def slept_s() -> float:
    """Return what the file says."""
    return float(Path(os.environ[SLEPT]).read_text())


async def main() -> None:
    """Watch until killed."""
    pulse = Pulse()
    # Asked even without any sign of a driver: then it is the library that is missing.
    monitor = GpuMonitor(
        NvmlProbe,
        times=TIMES,
        rules=RULES,
        is_driver_there=lambda: True,
        suspend=SuspendWatch(slept_s),
    )

    def tell(devices: tuple[SeenDevice, ...]) -> None:
        status = monitor.status
        line = {
            "state": status.state.value,
            "why": status.why,
            "driver": status.driver.driver_version,
            "n_hung": status.n_hung,
            "session": monitor._reading.session if monitor._reading is not None else None,
            "devices": {device.facts.device: device.health.value for device in devices},
            "used": {device.facts.device: device.used_bytes for device in devices},
            "parents": {device.facts.device: device.facts.parent for device in devices},
            "notes": {device: record.last_note for device, record in monitor.records().items()},
            "stood_still_s": pulse.longest_s,
            "has_cuda": "libcuda" in Path("/proc/self/maps").read_text(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse.run)
        await monitor.run(tell)


if __name__ == "__main__":
    trio.run(main)
