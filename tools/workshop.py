"""A folder in which llama.cpp is built: the build tools, and the sources that the lock pins.

Owns what comes before any compiling. What is made of the sources is the caller's: wheelhouse.py
makes the wheel, the bench makes llama.cpp's own server of the very same files.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools import machine
from tools.console import Runner, counter
from tools.machine import SetupError

PACKAGE: Final = "llama-cpp-python"
FETCH_TIMEOUT_S: Final = 1800.0


class Workshop:
    """Build tools and sources below *folder*. What is there already is used again."""

    def __init__(self, folder: Path, requirements: Path, runner: Runner, python: str) -> None:
        self._folder = folder
        self._requirements = requirements
        self._runner = runner
        self._python = python
        self._tools = folder / "env"
        self.pip: tuple[str, ...] = (
            str(self._tools / "bin" / "python"),
            *("-m", "pip", "--disable-pip-version-check", "--no-input"),
        )

    def environ(self, **extra: str) -> Mapping[str, str]:
        """Return our environment with the build tools in front and *extra* added."""
        path = os.pathsep.join([str(self._tools / "bin"), os.environ.get("PATH", os.defpath)])
        return {
            **os.environ,
            "CMAKE_BUILD_PARALLEL_LEVEL": str(machine.build_jobs()),
            "CMAKE_GENERATOR": "Ninja",
            "PATH": path,
            **extra,
        }

    def prepare_tools(self) -> None:
        """Install cmake, ninja and what else compiles. Raises SetupError."""
        self._runner.run(
            "preparing the build tools",
            [self._python, "-m", "venv", "--clear", str(self._tools)],
            timeout_s=FETCH_TIMEOUT_S,
        )
        # Two calls, as the second is to run with the pip that the first installs.
        for name in ("build", "native"):
            lock = self._requirements / f"{name}.txt"
            self._runner.run(
                f"installing the build tools ({name})",
                [*self.pip, "install", "--require-hashes", "--no-deps", "-r", str(lock)],
                timeout_s=FETCH_TIMEOUT_S,
                parse=counter((b"Collecting ",), count_pins(lock)),
            )

    def source(self, version: str) -> Path:
        """Return the unpacked source; its path stays the same, or objects could not be reused."""
        source = self._folder / "source"
        name = f"{PACKAGE.replace('-', '_')}-{version}"
        if (source / name / "CMakeLists.txt").exists():
            return source / name
        sdist = self._folder / "sdist"
        self._runner.run(
            "fetching llama.cpp (77 MB)",
            [
                *self.pip,
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
            environ=self.environ(),
        )
        unpacking = self._folder / "unpacking"
        shutil.rmtree(unpacking, ignore_errors=True)
        unpack(sdist / f"{name}.tar.gz", unpacking)
        shutil.rmtree(source, ignore_errors=True)
        unpacking.replace(source)
        return source / name

    def clear(self) -> None:
        """Remove the tools and the sources, which a finished build needs no more."""
        for leftover in (self._tools, self._folder / "sdist", self._folder / "source"):
            shutil.rmtree(leftover, ignore_errors=True)


def locked_version(lock: Path) -> str:
    """Return the version of the package that *lock* pins."""
    match = re.search(
        rf"^{PACKAGE}==([A-Za-z0-9.]+)", lock.read_text(encoding="utf-8"), re.MULTILINE
    )
    if match is None:
        raise SetupError(f"{lock} does not pin {PACKAGE}; run: make lock")
    return match[1]


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
