"""llama.cpp's own programs, of the very sources and flags of our wheel, built once and kept.

Owns which programs there are, how they differ from the wheel (only by what the wheel leaves out),
and where they lie. A server from elsewhere would compare compilers and versions, not servers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Final

from tools import machine, wheelhouse
from tools.console import Progress, Runner, ninja_fraction
from tools.machine import SetupError
from tools.wheelhouse import WheelSpec
from tools.workshop import Workshop

SERVER: Final = "llama-server"
BATCHED_BENCH: Final = "llama-batched-bench"
PROGRAMS: Final = (SERVER, BATCHED_BENCH)
CONFIGURE_TIMEOUT_S: Final = 600.0
BUILD_TIMEOUT_S: Final = 2 * 3600.0

FORMAT: Final = "1"
"""Raise it when the way of building changes what the programs are."""

ARGUMENTS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",  # What the package's build backend takes for the wheel.
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # Libraries are found after the folder was moved.
    "-DLLAMA_BUILD_COMMON=ON",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",  # It would want npm,
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # or the network.
    "-DLLAMA_CURL=OFF",
)


@dataclasses.dataclass(frozen=True, slots=True)
class PeerPrograms:
    """Where the built programs lie, and of which version they are."""

    folder: Path
    version: str

    def path(self, name: str) -> str:
        """Return the path of the program *name*."""
        return str(self.folder / name)


def key_of(spec: WheelSpec) -> str:
    """Return the folder name for programs made like the wheel of *spec*, but without patches."""
    digest = hashlib.sha256(repr((FORMAT, ARGUMENTS, PROGRAMS)).encode()).hexdigest()[:8]
    return f"{spec.key_with(())}-{digest}"


def built_programs(root: Path, environ: dict[str, str], progress: Progress) -> PeerPrograms:
    """Return llama.cpp's programs for this checkout, building them first. Raises SetupError."""
    compiler = machine.find_compiler()
    if compiler is None:
        raise SetupError(f"missing: a C++ compiler. Install with: {machine.apt_command(['g++'])}")
    flavour = wheelhouse.flavour_of(environ)
    spec = wheelhouse.spec_for(root / "requirements" / "llama.txt", flavour, environ, compiler)
    folder = machine.cache_home(environ) / "peers" / key_of(spec)
    folder.mkdir(parents=True, exist_ok=True)
    programs = PeerPrograms(folder / "bin", spec.version)
    with wheelhouse.locked(folder, progress, "another run builds llama.cpp's programs"):
        if not programs.folder.exists():
            _build(spec, folder, root / "requirements", progress)
    return programs


def _build(spec: WheelSpec, folder: Path, requirements: Path, progress: Progress) -> None:
    progress.say(
        f"first run: building {' and '.join(PROGRAMS)} ({spec.flavour}), about 5-20 minutes;"
        " later runs skip this"
    )
    runner = Runner(progress, folder / "build.log")
    workshop = Workshop(folder, requirements, runner, sys.executable)
    workshop.prepare_tools()
    source, objects = workshop.source(spec.version) / "vendor" / "llama.cpp", folder / "objects"
    environ = workshop.environ()
    runner.run(
        "configuring llama.cpp",
        ["cmake", "-S", str(source), "-B", str(objects), *ARGUMENTS, *spec.cmake_arguments],
        timeout_s=CONFIGURE_TIMEOUT_S,
        environ=environ,
    )
    runner.run(
        "building llama.cpp's programs",
        ["cmake", "--build", str(objects), "--target", *PROGRAMS],
        timeout_s=BUILD_TIMEOUT_S,
        parse=ninja_fraction,
        environ=environ,
    )
    # Last, and in one step: the folder's being there says that the build is whole.
    (objects / "bin").replace(folder / "bin")
    shutil.rmtree(objects, ignore_errors=True)
    workshop.clear()
