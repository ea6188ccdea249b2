"""`DeviceWatch`: sees main memory and the GPUs, and tells the kernel the complete list.

It joins the readings of two rooms, and says of main memory what our own runners use of it now:
what others use is the rest, also while runners come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import trio

from ollamad.config import GpuConfig
from ollamad.gpu.devices import DeviceId, SeenDevice
from ollamad.gpu.health import HealthRules
from ollamad.gpu.host import HostMemory
from ollamad.gpu.monitor import GpuMonitor, MonitorTimes
from ollamad.gpu.probe import GpuProbe, GpuSensors
from ollamad.gpu.visible import only_visible
from ollamad.runners.procmemory import own_memory_bytes

OwnProcesses = Callable[[], Iterable[int]]
"""Returns the ids of our runners' processes, the spare's included."""
Tell = Callable[[tuple[SeenDevice, ...]], None]
"""Takes the complete list of devices. Must not wait."""


class DeviceWatch:
    """Watches the devices of this machine."""

    def __init__(self, config: GpuConfig) -> None:
        self._config = config
        self.memory = HostMemory(memory_max_bytes=config.host_memory_max_bytes)
        self._gpus = GpuMonitor(
            _nvml_probe,
            times=MonitorTimes(period_s=config.memory_period_s, answer_s=config.answer_timeout_s),
            rules=HealthRules(recovery_s=config.recovery_s),
            is_ours=only_visible(config.visible),
        )
        self.expect_change: Callable[[], None] = self._gpus.expect_change
        """Look more often for a while: memory of a GPU is expected back."""

    async def run(
        self,
        tell: Tell,
        own_processes: OwnProcesses,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Watch until cancelled. It has begun when the GPUs have been looked for once."""

        def seen(gpus: tuple[SeenDevice, ...]) -> None:
            tell((self._main_memory(own_processes()), *gpus))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_main_memory, seen)
            if self._config.enabled:
                # The first requests are to find them, however long the driver takes to answer.
                await nursery.start(self._gpus.run, seen)
            task_status.started()

    def gpu_names(self) -> tuple[str, ...]:
        """Return what the GPUs that are there are called."""
        return tuple(gpu.facts.name for gpu in self._gpus.devices())

    def sensors(self) -> Mapping[DeviceId, GpuSensors]:
        """Return what the GPUs say of themselves."""
        return self._gpus.sensors()

    def status(self) -> str:
        """Return in words how the GPUs are watched."""
        return self._gpus.status.text

    async def _read_main_memory(self, seen: Tell) -> None:
        while True:
            seen(self._gpus.devices())
            await trio.sleep(self._config.memory_period_s)

    def _main_memory(self, own_processes: Iterable[int]) -> SeenDevice:
        facts = self.memory.facts()
        return SeenDevice(
            facts=facts,
            used_bytes=self.memory.used_bytes(facts.capacity_bytes),
            by_process={pid: own_memory_bytes(pid) for pid in own_processes},
        )


def _nvml_probe() -> GpuProbe:
    # Imported where there is a driver: it takes 5 MiB that a machine without one need not spend.
    from ollamad.gpu.nvml import NvmlProbe  # noqa: PLC0415

    return NvmlProbe()
