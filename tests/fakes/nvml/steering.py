"""The file that steers the fake library: a `GpuWorld`, one fact a line.

What the lines mean is told in `fakenvml.c`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ollamad.gpu.probe import GpuEvent, GpuEventKind
from tests.fakes.gpus import FakeGpu, GpuWorld

VARIABLE = "FAKE_NVML"
"""Names the file that steers the library."""

_EVENT_TYPES = {
    GpuEventKind.XID: 8,
    GpuEventKind.ECC_SINGLE: 1,
    GpuEventKind.ECC_DOUBLE: 2,
}


class Steering:
    """The file that a library in use reads at every call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self, world: GpuWorld, *more: str) -> None:
        """Have the library tell *world*, and follow the lines of *more*."""
        if not world.is_loaded:
            self.path.unlink(missing_ok=True)
            return
        lines = [*more, *_lines_of(world)]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.rename(self.path)


def _lines_of(world: GpuWorld) -> Iterator[str]:
    yield _line("driver", version=world.driver_version, nvml=world.nvml_version, cuda=world.cuda)
    for index, gpu in enumerate(world.gpus):
        yield from _lines_of_gpu(index, gpu)
    uuids = [gpu.uuid for gpu in world.gpus]
    for seq, event in enumerate(world.events, start=1):
        yield _event_line(seq, event, world, uuids.index(event.device))
    if world.is_hung:
        yield _line("hang", call="nvmlDeviceGetMemoryInfo")


def _lines_of_gpu(index: int, gpu: FakeGpu) -> Iterator[str]:
    capability = gpu.compute_capability
    yield _line(
        "gpu",
        uuid=gpu.uuid,
        name=gpu.name.replace(" ", "_"),
        total=gpu.total_bytes,
        used=gpu.used_bytes,
        minor=gpu.minor,
        busy=gpu.busy_percent,
        membusy=gpu.busy_percent,
        temp=gpu.temperature_c,
        slowdown=gpu.slowdown_c,
        shutdown=gpu.shutdown_c,
        power=gpu.power_mw,
        limit=gpu.power_limit_mw,
        sm=gpu.clock_sm_mhz,
        smmax=gpu.clock_sm_mhz,
        mem=gpu.clock_memory_mhz,
        memmax=gpu.clock_memory_mhz,
        corrected=gpu.corrected,
        uncorrected=gpu.uncorrected,
        throttle=gpu.throttle,
        cc=capability[0] * 10 + capability[1] if capability else None,
        pci=gpu.pci_bus_id,
        persistence=gpu.persistence,
        divided=gpu.is_divided,
        events=0b1011 if gpu.tells_events else 0,
    )
    for kind, by_process in (("compute", gpu.by_process), ("graphics", gpu.drawing)):
        for pid, used_bytes in by_process.items():
            yield _line("process", gpu=index, pid=pid, bytes=used_bytes, kind=kind)
    for number, instance in enumerate(gpu.instances):
        yield _line(
            "mig",
            gpu=index,
            gi=instance.gi,
            ci=instance.ci,
            uuid=instance.uuid,
            name=instance.name.replace(" ", "_"),
            total=instance.total_bytes,
            used=instance.used_bytes,
        )
        for pid, used_bytes in instance.by_process.items():
            yield _line("process", gpu=index, mig=number, pid=pid, bytes=used_bytes, kind="compute")
    if gpu.error:
        yield _line("error", call="*", gpu=index, code=gpu.error)


def _event_line(seq: int, event: GpuEvent, world: GpuWorld, gpu: int) -> str:
    named = next((i for i in world.gpus[gpu].instances if i.uuid == event.instance), None)
    return _line(
        "event",
        seq=seq,
        gpu=gpu,
        type=_EVENT_TYPES[event.kind],
        data=event.xid,
        gi=named.gi if named is not None else None,
        ci=named.ci if named is not None else None,
    )


def _line(what: str, /, **fields: str | int | None) -> str:
    told = [f"{key}={_text(value)}" for key, value in fields.items() if value is not None]
    return " ".join([what, *told])


def _text(value: str | int) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
