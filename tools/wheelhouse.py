"""llama.cpp as a wheel of our own: built once for this processor, kept, and never shared.

Owns the wheel's key, its flavours and its build. pip's cache is bypassed for it: pip files a built
wheel by its source alone, and would hand one processor's instructions to another. The sources and
objects of an unfinished build are kept, so that the next try goes on where it ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tools import machine, wheeltidy
from tools.console import Progress, Runner, ninja_fraction
from tools.machine import SetupError
from tools.patching import Hunk, apply_patches, read_patches
from tools.workshop import PACKAGE, Workshop, locked_version

BUILD_TIMEOUT_S: Final = 2 * 3600.0
LOCK_TIMEOUT_S: Final = 2 * 3600.0
LOCK_PERIOD_S: Final = 0.5
WHEELS_KEPT_MAX: Final = 6
"""Keys whose wheel is kept. The oldest goes: a new compiler or kernel makes a new key."""

FORMAT: Final = "1"
"""Raise it when the way of building changes what a wheel holds."""

COMMON_ARGUMENTS: Final = ("-DLLAVA_BUILD=OFF", "-DLLAMA_OPENSSL=OFF")
FLAVOURS: Final[Mapping[str, tuple[str, ...]]] = {
    "native": ("-DGGML_NATIVE=ON",),
    "portable": ("-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON", "-DGGML_NATIVE=OFF"),
    "cuda": ("-DGGML_NATIVE=ON", "-DGGML_CUDA=ON"),
}
EXPECTED: Final[Mapping[str, str]] = {
    "native": "about 3-10 minutes",
    "portable": "about 10-30 minutes",
    "cuda": "about 20-60 minutes",
}

# The package forces llama.cpp's `common` library on, half of all there is to compile, and uses
# nothing of it. CMake includes this file inside llama.cpp's own project(), after that was forced.
WITHOUT_COMMON: Final = 'set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)\n'

_NAME: Final = re.compile(r"[^A-Za-z0-9.]+")


@dataclasses.dataclass(frozen=True)
class WheelSpec:
    """All that decides what a wheel holds."""

    version: str
    flavour: str
    cmake_arguments: tuple[str, ...]
    compiler: str
    cpu_flags_hash: str
    machine: str

    @property
    def key(self) -> str:
        """A folder name: readable in front, a digest of every part behind."""
        return self.key_with(read_patches())

    def key_with(self, patches: tuple[Hunk, ...]) -> str:
        """Return the key of what is built with *patches*; without any, of llama.cpp as it is."""
        parts = (FORMAT, WITHOUT_COMMON, patches, *dataclasses.astuple(self))
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        return _NAME.sub("-", f"{PACKAGE}-{self.version}-{self.flavour}-{self.machine}-{digest}")


def flavour_of(environ: Mapping[str, str]) -> str:
    """Return the flavour that OLLAMAD_FLAVOUR asks for; native if it asks for none."""
    flavour = environ.get("OLLAMAD_FLAVOUR", "").strip() or "native"
    if flavour not in FLAVOURS:
        raise SetupError(
            f'OLLAMAD_FLAVOUR is "{flavour}": choose one of {", ".join(FLAVOURS)} or leave it out'
        )
    return flavour


def cmake_arguments(flavour: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the arguments of *flavour*, then the reader's own from CMAKE_ARGS."""
    try:
        own = shlex.split(environ.get("CMAKE_ARGS", ""))
    except ValueError as exc:
        raise SetupError(f"CMAKE_ARGS cannot be read: {exc}; mend its quotes") from exc
    return (*COMMON_ARGUMENTS, *without_amx(platform.machine()), *FLAVOURS[flavour], *own)


def without_amx(processor: str) -> tuple[str, ...]:
    """Return arguments that keep Intel's AMX instructions out.

    GCC 12 and older drop stores to the tile configuration that `_tile_loadconfig` reads (its
    memory operand covers only 8 bytes), so llama.cpp's AMX path loads garbage and the process
    dies of SIGSEGV at the first prompt on processors that have AMX.
    """
    if processor != "x86_64":
        return ()
    flags = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    return (f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}")


def spec_for(lock: Path, flavour: str, environ: Mapping[str, str], compiler: str) -> WheelSpec:
    """Return what would be built here and now."""
    described = machine.compiler_version(compiler)
    if flavour == "cuda":
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise SetupError(
                "the cuda flavour needs NVIDIA's compiler, nvcc, on PATH. Install with:"
                f" {machine.apt_command(['nvidia-cuda-toolkit'])}"
            )
        described += f" {_last_line(nvcc)}"
    return WheelSpec(
        version=locked_version(lock),
        flavour=flavour,
        cmake_arguments=cmake_arguments(flavour, environ),
        compiler=described,
        # A portable wheel chooses its instructions when it starts.
        cpu_flags_hash="any" if flavour == "portable" else machine.cpu_flags_hash(),
        machine=platform.machine(),
    )


def _last_line(nvcc: str) -> str:
    answer = subprocess.run(
        [nvcc, "--version"],
        check=False,
        capture_output=True,
        text=True,
        timeout=machine.PROBE_TIMEOUT_S,
    )
    return answer.stdout.strip().rpartition("\n")[2]


@contextlib.contextmanager
def locked(path: Path, progress: Progress, busy: str) -> Iterator[None]:
    """Hold the lock of *path* (a file or folder); say *busy* once if another run holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise SetupError(
                        f"{busy}, and did not finish. Look for it with: fuser -v {path}"
                    ) from None
                if not told:
                    progress.say(f"{busy}; waiting for it to finish")
                    told = True
                time.sleep(LOCK_PERIOD_S)
        yield
    finally:
        os.close(descriptor)


class Wheelhouse:
    """The folder of built wheels, one folder a key."""

    def __init__(self, root: Path, requirements: Path, runner: Runner, python: str) -> None:
        self._root = root
        self._requirements = requirements
        self._runner = runner
        self._python = python

    def find(self, spec: WheelSpec) -> Path | None:
        """Return the finished wheel of *spec*, if there is one."""
        return next(iter(sorted((self._root / spec.key).glob("*.whl"))), None)

    def wheel(self, spec: WheelSpec) -> Path:
        """Return the wheel of *spec*, building it first if need be."""
        folder = self._root / spec.key
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, self._runner.progress, "another run builds llama.cpp"):
            finished = self.find(spec)
            if finished is None:
                finished = self._build(spec, folder)
        os.utime(folder)
        self._prune(keep=folder)
        return finished

    def _build(self, spec: WheelSpec, folder: Path) -> Path:
        say = self._runner.progress.say
        say(
            f"first run: building llama.cpp ({spec.flavour}), {EXPECTED[spec.flavour]};"
            " later runs skip this"
        )
        workshop = Workshop(folder, self._requirements, self._runner, self._python)
        workshop.prepare_tools()
        source, work = workshop.source(spec.version), folder / "work"
        apply_patches(source, read_patches())
        shutil.rmtree(work, ignore_errors=True)
        self._runner.run(
            "building llama.cpp",
            [
                *workshop.pip,
                "wheel",
                "--verbose",  # Else pip keeps ninja's counting to itself.
                "--no-deps",
                "--no-cache-dir",
                "--no-build-isolation",
                f"--wheel-dir={work}",
                f"--config-settings=build-dir={folder / 'objects'}",
                str(source),
            ],
            timeout_s=BUILD_TIMEOUT_S,
            parse=ninja_fraction,
            environ=workshop.environ(CMAKE_ARGS=_package_arguments(spec, folder)),
        )
        built = sorted(work.glob("*.whl"))
        if len(built) != 1:
            raise SetupError(f"the build left {len(built)} wheels in {work}, not one; try again")
        tidied = wheeltidy.tidy(built[0], work / "tidied")
        finished = folder / tidied.name
        tidied.replace(finished)
        workshop.clear()
        shutil.rmtree(work)
        shutil.rmtree(folder / "objects", ignore_errors=True)
        return finished

    def _prune(self, keep: Path) -> None:
        folders = [path for path in self._root.iterdir() if path.is_dir() and path != keep]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in folders[WHEELS_KEPT_MAX - 1 :]:
            shutil.rmtree(folder, ignore_errors=True)


def _package_arguments(spec: WheelSpec, folder: Path) -> str:
    """Return CMAKE_ARGS for the package's build, and write the file that they name."""
    include = folder / "without-common.cmake"
    include.write_text(WITHOUT_COMMON, encoding="utf-8")
    return shlex.join((*spec.cmake_arguments, f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={include}"))
