"""Shuts a runner in, twice: at its start, and again when it learns which model it is for.

A runner computes what files from anywhere say, so it gives up what computing does not need, before
it sees the first byte of one:

1. **At the start**, after the imports and before any library makes a thread (`begin`): limits, a
   higher OOM score, no new privileges, a filter of system calls, and a first Landlock domain. All
   threads that come later inherit these. The domain lets it read Python, libraries, `/proc` (of
   which Landlock itself hides what is other processes' own), the processors' facts and the blobs
   of the store, and use the devices that compute; nothing else, and nothing over the network.
2. **At `Load`** (`narrow`): a second domain, in which of all blobs there are only the plan's.
   Trio's thread enters it and then starts the engine's thread, which inherits it, as do the
   threads that the engine makes (OpenMP's, the grammar's). Threads that a GPU's driver has made
   before stay in the first domain; how many there are is written to the log.

Not before the imports, because what Python compiles at the first start could then not be kept, and
each runner would compile it again.

What the kernel does not offer is skipped with a line in the log; `applied` names what was done.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import ollamad
from ollamad.runners import landlock, seccomp
from ollamad.runners.landlock import READ, READ_WRITE, REWRITE, Rule
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.walls import Wall

OPEN_FILES_MAX: Final = 1024
"""A runner on a CPU has a dozen; a GPU's driver opens some for each device and process."""
OOM_SCORE_MORE: Final = 500
"""Thousandths of all memory by which a runner looks larger than the daemon."""
OOM_SCORE_MAX: Final = 1000
_CAPABILITIES_KEPT: Final = 1 << 1 | 1 << 2 | 1 << 14
"""Reading models whatever their mode (DAC_OVERRIDE, DAC_READ_SEARCH), and locking them in memory
(IPC_LOCK). With the others, root sees other processes' memory whatever Landlock says."""
_CAPABILITY_VERSION_3: Final = 0x20080522

_LIBRARIES: Final = (
    "/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64", "/usr/local/lib",
    "/usr/local/lib64", "/usr/local/cuda", "/opt/rocm", "/opt/intel", "/nix/store",
    "/etc/ld.so.cache", "/etc/vulkan", "/usr/share/vulkan", "/usr/share/libdrm", "/etc/OpenCL",
)  # fmt: skip
"""Where libraries and what they look up are. Folders that are not there are no rules."""
_FACTS: Final = ("/proc", "/sys/devices/system", "/dev/urandom", "/dev/random", "/dev/zero")
_OWN: Final = ("/proc/self/comm", "/proc/self/task", "/dev/null")
"""Written to: the names of the process and its threads, and what swallows everything."""
_DEVICES: Final = ("nvidia*", "dri", "kfd", "accel", "dxg")
_DEVICE_FACTS: Final = ("/sys/devices", "/sys/bus/pci", "/sys/class", "/sys/module")
"""What a driver's library looks up, once there is a device."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the daemon says about Wall."""

    is_on: bool = False
    core_dumps: bool = False
    readable: tuple[Path, ...] = ()
    """Folders with what may be loaded."""
    cgroup: Path | None = None


class Confinement:
    """Applies the orders. Called from the main thread."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._abi = 0
        self.applied: tuple[str, ...] = ()
        """What holds for every thread made after `begin`, by the names of `Wall`."""

    def begin(self) -> None:
        """Apply all that does not depend on a model."""
        if self._orders.cgroup is not None:
            self._try(Wall.CGROUP, _join, self._orders.cgroup)
        if not self._orders.is_on:
            return
        self._try(Wall.LIMITS, _limit_files)
        if not self._orders.core_dumps:
            self._try(Wall.CORE_DUMPS, _forbid_core_dumps)
        self._try(Wall.OOM_SCORE, _raise_oom_score)
        self._try(Wall.CAPABILITIES, _drop_capabilities)
        if not self._try(Wall.NO_NEW_PRIVILEGES, seccomp.forbid_new_privileges):
            return  # The kernel wants it for what follows.
        abi = landlock.abi_version()
        if abi and self._try(Wall.FILES, landlock.restrict, _rules(self._orders.readable), abi):
            self._abi = abi
            network = (Wall.NETWORK,) if abi >= landlock.NETWORK_ABI else ()
            scopes = (Wall.SCOPES,) if abi >= landlock.SCOPES_ABI else ()
            self.applied += network + scopes
        machine = seccomp.machine()
        if machine is not None and seccomp.is_offered():
            self._try(Wall.SYSTEM_CALLS, seccomp.install, machine)

    def narrow(self, plan: LoadPlan) -> None:
        """Enter the domain in which there is no model but the plan's. The engine's thread inherits.

        A file outside the first domain stays out of reach, and says so when it is opened.
        """
        if not self._abi:
            return
        files = [Path(plan.model_path), *map(Path, plan.adapter_paths)]
        try:
            landlock.restrict(_rules(files), self._abi)
        except OSError as exc:
            _say("W", f"this runner may still read other models: {exc.strerror}")
        n_others = len(list(Path("/proc/self/task").iterdir())) - 1
        if n_others:
            _say("I", f"{n_others} threads of libraries may still read other models")

    def _try(self, name: Wall, apply: Callable[..., None], *arguments: object) -> bool:
        try:
            apply(*arguments)
        except OSError as exc:
            _say("W", f"isolation of a runner, {name}: {exc.strerror}")
            return False
        self.applied = (*self.applied, name)
        return True


def _rules(readable: Iterable[Path]) -> Iterator[Rule]:
    """Yield what every runner may reach, and *readable*."""
    folders = [*_LIBRARIES, *_FACTS, *sys.path, str(Path(ollamad.__file__).parent)]
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    devices = [path for pattern in _DEVICES for path in Path("/dev").glob(pattern)]
    if devices:
        folders += _DEVICE_FACTS
    for folder in dict.fromkeys(folders):
        if folder.startswith("/"):
            yield Rule(Path(folder), READ)
    for name in _OWN:
        yield Rule(Path(name), REWRITE)
    for device in devices:
        yield Rule(device, READ_WRITE)
    for path in readable:
        yield Rule(path, READ)


def _join(group: Path) -> None:
    (group / "cgroup.procs").write_text("0")


def _limit_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(OPEN_FILES_MAX, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, most) if soft > 0 else most, most))


def _forbid_core_dumps() -> None:
    # Not by PR_SET_DUMPABLE: it would also take /proc/self away from a runner that is not root's.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _raise_oom_score() -> None:
    path = Path("/proc/self/oom_score_adj")
    score = min(int(path.read_text()) + OOM_SCORE_MORE, OOM_SCORE_MAX)
    path.write_text(str(score))


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    now = ctypes.create_string_buffer(24)  # Effective, permitted, inheritable; the high words.
    if libc.capget(header, now) == 0:
        effective, permitted, _, *_high = struct.unpack("=6I", now.raw)
        kept = (effective & _CAPABILITIES_KEPT, permitted & _CAPABILITIES_KEPT)
        if libc.capset(header, struct.pack("=6I", *kept, 0, 0, 0, 0)) == 0:
            return
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _say(mark: str, text: str) -> None:
    """Write a line for the daemon's log (see ollamad.runners.logs)."""
    with contextlib.suppress(OSError):  # Nobody reads any more: the daemon is gone, and so are we.
        os.write(2, f"{mark} {text}\n".encode())
