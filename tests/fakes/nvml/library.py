"""A fake `libnvidia-ml.so.1`, compiled from C by the tests that need it."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ollamad.gpu import nvml
from tests.fakes.gpus import LIBRARY_VERSION

NAME = "libnvidia-ml.so.1"

SOURCE = Path(__file__).with_name("fakenvml.c")


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
