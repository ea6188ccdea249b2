"""A control group for each runner, where the daemon has been given a part of the tree (cgroup v2).

Only what the service manager has *delegated* is touched, which it marks on the folder. Processes
may not stand beside groups with controllers, so the daemon moves into a leaf `daemon/` first (as
systemd's `DelegateSubgroup=daemon` does by itself), and runners get folders beside it:

    ollamad.service/        delegated to us
        daemon/             the daemon
        runner-1/           a runner: memory.high, memory.max, cpu.weight

A runner joins its group itself: moving a process can take the kernel milliseconds, which the
daemon's loop does not have. The group ends its processes with `cgroup.kill`, and is removed when
they are gone. Folders are the whole interface, so tests give a folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ollamad.units import MIB

CPU_WEIGHT: Final = 50
"""A runner's share of a busy machine; the daemon's own is 100. It must answer while runners
compute."""
MEMORY_EXTRA_SHARE: Final = 0.25
"""By how much a runner may go past what was planned for it, before it is slowed down."""
MEMORY_EXTRA_BYTES: Final = 512 * MIB
"""And this, for the interpreter, libraries and small models, whose estimates err by more."""
MEMORY_MAX_SHARE: Final = 1.25
"""At so many times the bound at which it is slowed down, it is ended."""
WANTED: Final = ("cpu", "memory", "pids")
PIDS_MAX: Final = 4096
"""Threads of one runner: one for each core of the largest machine, and its library's."""
LEAF: Final = "daemon"
PREFIX: Final = "runner-"
DOOMED_MAX: Final = 64
"""Groups that could not be removed yet, and are tried again. More are left to the next start."""
GROUPS_MAX: Final = 1000
"""Groups of an earlier life that a start looks at."""

_MARKS: Final = ("user.delegate", "trusted.delegate")
_ROOT: Final = Path("/sys/fs/cgroup")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class NotDelegated:
    """There is no part of the tree for us."""

    why: str


def own_group(self_cgroup: Path = Path("/proc/self/cgroup"), root: Path = _ROOT) -> Path | None:
    """Return this process's folder in a tree of version 2 only, or `None` without one."""
    if not (root / "cgroup.controllers").is_file():
        return None  # Version 1, or none: there, controllers are trees of their own.
    for line in self_cgroup.read_text().splitlines():
        if line.startswith("0::"):
            return root / line[3:].lstrip("/")
    return None


def is_marked(group: Path) -> bool:
    """The service manager has written on the folder that it is delegated."""
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            return os.getxattr(group, mark) == b"1"
    return False


def claim(
    group: Path | None, *, is_delegated: Callable[[Path], bool] = is_marked
) -> CgroupTree | NotDelegated:
    """Take the part of the tree that *group*, the daemon's own, is the root or the leaf of.

    Moves this process into the leaf. Whatever is not as expected leaves the tree as it is.
    """
    if group is None:
        return NotDelegated("no cgroup v2")
    is_leaf = group.name == LEAF and is_delegated(group.parent)
    root = group.parent if is_leaf else group
    if not is_delegated(root):
        return NotDelegated("the service manager has delegated no cgroup")
    try:
        if not is_leaf:
            _move_into_leaf(root)
        return CgroupTree(root, _enabled(root))
    except OSError as exc:
        return NotDelegated(f"the delegated cgroup cannot be used: {exc.strerror}")


def _move_into_leaf(root: Path) -> None:
    leaf = root / LEAF
    leaf.mkdir(exist_ok=True)
    for line in (root / "cgroup.procs").read_text().split():
        (leaf / "cgroup.procs").write_text(line)


def _enabled(root: Path) -> frozenset[str]:
    """Turn on what there is of the controllers we want; return what is on then."""
    offered = (root / "cgroup.controllers").read_text().split()
    control = root / "cgroup.subtree_control"
    for name in WANTED:
        if name in offered:
            control.write_text(f"+{name}")
    return frozenset(WANTED) & frozenset(offered)


class CgroupTree:
    """Makes groups for runners, and removes them."""

    def __init__(self, root: Path, controllers: frozenset[str]) -> None:
        self._root = root
        self.controllers = controllers
        self._numbers = itertools.count(1)
        self._doomed: list[RunnerGroup] = []

    def end_leftovers(self) -> int:
        """End what an earlier life left in its groups; return how many groups were found."""
        found = sorted(self._root.glob(f"{PREFIX}*"))[:GROUPS_MAX]
        for folder in found:
            group = RunnerGroup(folder, self.controllers)
            group.kill()
            self.remove(group)
        return len(found)

    def make(self) -> RunnerGroup:
        """Return a new group. Raises OSError."""
        self._remove_doomed()
        while True:
            folder = self._root / f"{PREFIX}{next(self._numbers)}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return RunnerGroup(folder, self.controllers)

    def remove(self, group: RunnerGroup) -> None:
        """Remove a group whose processes have ended; later, if the kernel is not done with them."""
        if not group.try_remove() and len(self._doomed) < DOOMED_MAX:
            self._doomed.append(group)

    def _remove_doomed(self) -> None:
        self._doomed = [group for group in self._doomed if not group.try_remove()]


class RunnerGroup:
    """One runner's group."""

    def __init__(self, folder: Path, controllers: frozenset[str]) -> None:
        self.folder = folder
        self._controllers = controllers
        self._write("cpu", "cpu.weight", str(CPU_WEIGHT))
        self._write("pids", "pids.max", str(PIDS_MAX))
        # Killed as a whole: half a runner is none.
        self._write("memory", "memory.oom.group", "1")

    def limit_memory(self, planned_bytes: int) -> None:
        """Bound memory by what was planned: past it the runner slows down, far past it it ends.

        Mapped weights count as memory, but what of them the kernel can drop is no reason to end.
        """
        high = int(planned_bytes * (1 + MEMORY_EXTRA_SHARE)) + MEMORY_EXTRA_BYTES
        self._write("memory", "memory.high", str(high))
        self._write("memory", "memory.max", str(int(high * MEMORY_MAX_SHARE)))

    @property
    def n_oom_kills(self) -> int:
        """How often the kernel ended something here for its memory."""
        try:
            lines = (self.folder / "memory.events").read_text().splitlines()
        except OSError:
            return 0
        counts = dict(line.split(maxsplit=1) for line in lines)
        return int(counts.get("oom_kill", 0))

    def kill(self) -> bool:
        """End all processes of the group at once; false if the kernel cannot (before 5.14)."""
        try:
            (self.folder / "cgroup.kill").write_text("1")
        except OSError:
            return False
        return True

    def try_remove(self) -> bool:
        """Remove the group; false if processes are still leaving it."""
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError as exc:
            if exc.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
                _log.warning(f"cannot remove the cgroup {self.folder}: {exc.strerror}")
            return False
        return True

    def _write(self, controller: str, name: str, value: str) -> None:
        if controller not in self._controllers:
            return
        try:
            (self.folder / name).write_text(value)
        except OSError as exc:
            _log.warning(f"cannot set {name} of a runner to {value}: {exc.strerror}")
