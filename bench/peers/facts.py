"""Where and when something was measured: without it a figure says nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from bench.peers.build import PeerPrograms
from ollamad import __version__

GIT_TIMEOUT_S: Final = 10.0


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def n_physical_cores() -> int:
    """Return how many cores we may use, without their second threads."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


@dataclasses.dataclass(frozen=True, slots=True)
class Busyness:
    """How much the machine had to do for others."""

    load_average: tuple[float, float, float]
    stolen_s: float
    """The time that a hypervisor has taken away since the machine started."""


def busyness() -> Busyness:
    """Return how busy the machine is at this moment."""
    return Busyness(os.getloadavg(), float(getattr(psutil.cpu_times(), "steal", 0.0)))


def commit(root: Path) -> str:
    """Return the commit of the checkout, marked with + if it has changes; empty without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def facts(root: Path, programs: PeerPrograms) -> Mapping[str, object]:
    """Return what does not change during a run."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processor": processor(),
        "cores_physical": n_physical_cores(),
        "cores_logical": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ollamad": __version__,
        "commit": commit(root),
        "llama_cpp_python": programs.version,
    }
