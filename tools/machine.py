"""What this machine has and lacks: a Python, its venv module, a C++ compiler, room on disk.

Owns the checks that come before anything is installed, and the sentences that say how to mend
what they find. Standard library only, in the syntax of Python 3.9: an old interpreter must still
get far enough to say that it is too old.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

GiB: Final = 1024**3
PYTHON_MIN: Final = (3, 11)
PYTHON_NAMES: Final = ("python3.13", "python3.12", "python3.11", "python3")
"""Tried in this order. `python3` comes last so that it may also be something newer."""

COMPILER_NAMES: Final = ("c++", "g++", "clang++")
VENV_BYTES_NEEDED: Final = GiB
BUILD_BYTES_NEEDED: Final = GiB // 2
BUILD_BYTES_PER_JOB: Final = GiB
"""Memory one C++ compiler may need; fewer jobs run at once where memory is shorter than cores."""

PROBE_TIMEOUT_S: Final = 20
CPUINFO_CHARACTERS_MAX: Final = 1 << 20

_PROBE: Final = (
    "import os, sys; print(*sys.version_info[:2]); print(os.path.realpath(sys.executable));"
    "import ensurepip, venv; print('venv')"
)


class SetupError(Exception):
    """Something on this machine must change first. The message says what, and how."""


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python found on PATH."""

    path: str
    """As found. It may be a version manager's shim, or belong to an environment."""

    real_path: str
    """The program itself, which stays when an environment is removed."""

    version: tuple[int, int]
    has_venv: bool
    """Whether it can make environments. Debian's own Python cannot without python3-venv."""

    @property
    def is_recent(self) -> bool:
        """Whether ollamad runs on this version."""
        return self.version >= PYTHON_MIN


def probe_interpreter(path: str) -> Interpreter | None:
    """Return what *path* is, or None if it does not run as a Python (a version manager's shim)."""
    try:
        probe = subprocess.run(
            [path, "-I", "-c", _PROBE],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    lines = probe.stdout.splitlines()
    words = lines[0].split() if len(lines) >= 2 else []
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    return Interpreter(path, lines[1], (int(words[0]), int(words[1])), lines[-1] == "venv")


def find_interpreters() -> list[Interpreter]:
    """Return the Pythons on PATH, in the order in which they are preferred."""
    paths = [path for path in map(shutil.which, PYTHON_NAMES) if path]
    found = [probe_interpreter(path) for path in paths]
    return [interpreter for interpreter in found if interpreter]


def choose_interpreter(found: list[Interpreter]) -> Interpreter | None:
    """Return the best of *found*: recent and with venv, else recent, else none."""
    recent = [interpreter for interpreter in found if interpreter.is_recent]
    whole = [interpreter for interpreter in recent if interpreter.has_venv]
    return next(iter([*whole, *recent]), None)


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that CMake will take, or None."""
    asked = os.environ.get("CXX")
    names = (shlex.split(asked)[0],) if asked and asked.strip() else COMPILER_NAMES
    return next((path for path in map(shutil.which, names) if path), None)


def compiler_version(compiler: str) -> str:
    """Return the first line of the compiler's own description."""
    try:
        answer = subprocess.run(
            [compiler, "--version"],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise SetupError(f"the C++ compiler {compiler} does not run: {exc}") from exc
    return answer.stdout.partition("\n")[0].strip()


def apt_command(packages: list[str]) -> str:
    """Return the command that installs *packages* on Debian or Ubuntu."""
    become_root = "" if os.geteuid() == 0 else "sudo "
    return f"{become_root}apt install {' '.join(packages)}"


def missing_message(chosen: Interpreter | None, compiler: str | None) -> str | None:
    """Return one line that names all that is missing and the command for it, or None."""
    words: list[str] = []
    packages: list[str] = []
    if chosen is None:
        words.append("Python 3.11 or newer (Debian 12 and Ubuntu 24.04 have it)")
        packages += ["python3", "python3-venv"]
    elif not chosen.has_venv:
        words.append(f"the venv module of {chosen.path}")
        packages.append(_venv_package(chosen))
    if compiler is None:
        words.append("a C++ compiler")
        packages.append("g++")
    if not packages:
        return None
    return f"missing: {' and '.join(words)}. Install with: {apt_command(packages)}"


def _venv_package(interpreter: Interpreter) -> str:
    name = Path(interpreter.path).name
    return f"{name}-venv" if name.startswith("python3") else "python3-venv"


def check_room(needs: dict[Path, int]) -> None:
    """Raise SetupError if the file systems of *needs* have fewer bytes free than it says.

    Needs on one file system add up.
    """
    devices: dict[int, tuple[Path, int]] = {}
    for path, needed_bytes in needs.items():
        existing = next(folder for folder in [path, *path.parents] if folder.exists())
        device = existing.stat().st_dev
        first, sum_bytes = devices.get(device, (existing, 0))
        devices[device] = (first, sum_bytes + needed_bytes)
    for folder, needed_bytes in devices.values():
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes:
            raise SetupError(
                f"too little room on disk: {folder} has {free_bytes / GiB:.1f} GiB free,"
                f" {needed_bytes / GiB:.1f} GiB are needed. Make room there,"
                " or set XDG_CACHE_HOME to a folder on another disk"
            )


def cpu_flags_hash(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return a digest of the instructions this processor has.

    All flags count, also those no compiler uses: a wheel built once too often costs minutes, one
    shared wrongly dies of an illegal instruction.
    """
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            text = lines.read(CPUINFO_CHARACTERS_MAX)
    except OSError:
        text = ""
    kinds = ("flags", "features", "isa")
    flags: set[str] = set()
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip().lower() in kinds:
            flags.update(value.split())
    known = " ".join(sorted(flags)) or platform.processor() or platform.node()
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def build_jobs() -> int:
    """Return how many compilers to run at once: one a core, while memory lasts."""
    cores = len(os.sched_getaffinity(0))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory_bytes // BUILD_BYTES_PER_JOB))


def cache_home(environ: dict[str, str]) -> Path:
    """Return where built wheels are kept: below XDG_CACHE_HOME or ~/.cache."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    folder = Path(base) if base.startswith("/") else Path("~/.cache").expanduser()
    return folder / "ollamad"
