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
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tools import machine, wheeltidy
from tools.console import Progress, Runner, counter, ninja_fraction
from tools.machine import SetupError

PACKAGE: Final = "llama-cpp-python"
BUILD_TIMEOUT_S: Final = 2 * 3600.0
FETCH_TIMEOUT_S: Final = 1800.0
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
        parts = (FORMAT, WITHOUT_COMMON, *dataclasses.astuple(self))
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


def locked_version(lock: Path) -> str:
    """Return the version of the package that *lock* pins."""
    match = re.search(
        rf"^{PACKAGE}==([A-Za-z0-9.]+)", lock.read_text(encoding="utf-8"), re.MULTILINE
    )
    if match is None:
        raise SetupError(f"{lock} does not pin {PACKAGE}; run: make lock")
    return match[1]


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
        environment, work = folder / "env", folder / "work"
        environ = self._environ(spec, folder, environment)
        self._prepare_environment(environment)
        source = self._fetch_source(spec, folder, environment, environ)
        shutil.rmtree(work, ignore_errors=True)
        self._runner.run(
            "building llama.cpp",
            [
                *_pip(environment),
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
            environ=environ,
        )
        built = sorted(work.glob("*.whl"))
        if len(built) != 1:
            raise SetupError(f"the build left {len(built)} wheels in {work}, not one; try again")
        tidied = wheeltidy.tidy(built[0], work / "tidied")
        finished = folder / tidied.name
        tidied.replace(finished)
        for leftover in (environment, work, folder / "sdist", folder / "source"):
            shutil.rmtree(leftover)
        shutil.rmtree(folder / "objects", ignore_errors=True)
        return finished

    def _environ(self, spec: WheelSpec, folder: Path, environment: Path) -> dict[str, str]:
        include = folder / "without-common.cmake"
        include.write_text(WITHOUT_COMMON, encoding="utf-8")
        arguments = (*spec.cmake_arguments, f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={include}")
        path = os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)])
        return {
            **os.environ,
            "CMAKE_ARGS": shlex.join(arguments),
            "CMAKE_BUILD_PARALLEL_LEVEL": str(machine.build_jobs()),
            "CMAKE_GENERATOR": "Ninja",
            "PATH": path,
        }

    def _prepare_environment(self, environment: Path) -> None:
        self._runner.run(
            "preparing the build tools",
            [self._python, "-m", "venv", "--clear", str(environment)],
            timeout_s=FETCH_TIMEOUT_S,
        )
        # Two calls, as the second is to run with the pip that the first installs.
        for name in ("build", "native"):
            lock = self._requirements / f"{name}.txt"
            self._runner.run(
                f"installing the build tools ({name})",
                [*_pip(environment), "install", "--require-hashes", "--no-deps", "-r", str(lock)],
                timeout_s=FETCH_TIMEOUT_S,
                parse=counter((b"Collecting ",), count_pins(lock)),
            )

    def _fetch_source(
        self, spec: WheelSpec, folder: Path, environment: Path, environ: dict[str, str]
    ) -> Path:
        """Return the unpacked source; its path stays the same, or objects could not be reused."""
        source = folder / "source"
        name = f"{PACKAGE.replace('-', '_')}-{spec.version}"
        if (source / name / "CMakeLists.txt").exists():
            return source / name
        sdist = folder / "sdist"
        self._runner.run(
            "fetching llama.cpp (77 MB)",
            [
                *_pip(environment),
                "download",
                "--require-hashes",
                "--no-deps",
                "--no-cache-dir",
                "--no-build-isolation",
                f"--no-binary={PACKAGE}",
                f"--dest={sdist}",
                "-r",
                str(self._requirements / "llama.txt"),
            ],
            timeout_s=FETCH_TIMEOUT_S,
            environ=environ,
        )
        unpacking = folder / "unpacking"
        shutil.rmtree(unpacking, ignore_errors=True)
        unpack(sdist / f"{name}.tar.gz", unpacking)
        shutil.rmtree(source, ignore_errors=True)
        unpacking.replace(source)
        return source / name

    def _prune(self, keep: Path) -> None:
        folders = [path for path in self._root.iterdir() if path.is_dir() and path != keep]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in folders[WHEELS_KEPT_MAX - 1 :]:
            shutil.rmtree(folder, ignore_errors=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a source archive whose hash was checked; members that point outside are refused."""
    try:
        with tarfile.open(archive) as tar:
            if sys.version_info >= (3, 12) or hasattr(tarfile, "data_filter"):
                tar.extractall(folder, filter="data")
            else:  # Python 3.11 before 3.11.4: no filter, so look at the names first.
                root = folder.resolve()
                members = tar.getmembers()
                for member in members:
                    if not (root / member.name).resolve().is_relative_to(root):
                        raise SetupError(f"{archive} holds a path outside: {member.name}")
                tar.extractall(folder, members=members)  # noqa: S202  # Checked just above.
    except (OSError, tarfile.TarError, EOFError) as exc:
        raise SetupError(f"cannot unpack {archive}: {exc}; delete it and try again") from exc


def count_pins(lock: Path) -> int:
    """Return how many packages *lock* pins for Linux."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if "==" in line and not line.startswith((" ", "#"))]
    return sum(1 for pin in pins if "win32" not in pin and "os_name == 'nt'" not in pin)


def _pip(environment: Path) -> list[str]:
    python = str(environment / "bin" / "python")
    options = ["--disable-pip-version-check", "--no-input"]
    return [python, "-m", "pip", *options]
