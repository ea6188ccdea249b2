"""A fake `libnvidia-ml.so.1`: compiled from C, and steered by a file that shows a `GpuWorld`."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ollamad.gpu import nvml
from ollamad.gpu.probe import GpuEvent, GpuEventKind
from tests.fakes.gpus import LIBRARY_VERSION, FakeGpu, GpuWorld

NAME = "libnvidia-ml.so.1"
VARIABLE = "FAKE_NVML"
"""Names the file that steers the library."""

SOURCE = Path(__file__).with_name("fakenvml.c")

_EVENT_TYPES = {
    GpuEventKind.XID: 8,
    GpuEventKind.ECC_SINGLE: 1,
    GpuEventKind.ECC_DOUBLE: 2,
}


def build(folder: Path, version: str = LIBRARY_VERSION) -> Path:
    """Compile the library into *folder* and return its path."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "the tests compile a small C library: install a C compiler"
    library = folder / NAME
    # Not in place: a process that has the old one mapped would see it change under its feet.
    fresh = folder / f"{NAME}.new"
    subprocess.run(
        [
            *(compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"),
            *(f"-Wl,-soname,{NAME}", f'-DNVML_BUILD="{version}"', "-o", str(fresh), str(SOURCE)),
        ],
        check=True,
    )
    fresh.rename(library)
    return library


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


@contextlib.contextmanager
def loaded_here(folder: Path) -> Iterator[None]:
    """Have this process's pynvml find the library in *folder*, and forget it afterwards.

    The loader takes a library by its name for one that is there already.
    """
    library = ctypes.CDLL(str(folder / NAME))
    try:
        yield
    finally:
        forget_library()
        close = ctypes.CDLL(None).dlclose
        close.argtypes = [ctypes.c_void_p]
        close(library._handle)


def forget_library() -> None:
    """Have pynvml load its library anew the next time, fake or not."""
    nvml._shut_down()
    nvml._unload_library()


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
    gi = next((i.gi for i in world.gpus[gpu].instances if i.uuid == event.instance), None)
    return _line("event", seq=seq, gpu=gpu, type=_EVENT_TYPES[event.kind], data=event.xid, gi=gi)


def _line(what: str, /, **fields: str | int | None) -> str:
    told = [f"{key}={_text(value)}" for key, value in fields.items() if value is not None]
    return " ".join([what, *told])


def _text(value: str | int) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
