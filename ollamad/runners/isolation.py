"""How runners are shut in: what is asked for, what this system offers, and what it does not.

Isolation is applied by each runner to itself (`ollamad.runners.worker.confine`), because most of
it is the kernel's promise to a process that gives something up. The daemon says what to apply,
by arguments of the worker, and tells whoever asks what is on and why something is not.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ollamad.config import RunnerConfig
from ollamad.runners import landlock, seccomp
from ollamad.runners.cgroup import CgroupTree, NotDelegated, claim, own_group
from ollamad.runners.walls import Wall

BLOBS_LOOKED_AT_MAX: Final = 10_000
"""Entries of the store that are looked at for links, which takes 5 ms."""
LINKED_FOLDERS_MAX: Final = 64
"""Folders outside the store that links in it may lead to. Each is one more rule for the kernel."""


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """One wall around a runner."""

    name: Wall
    is_on: bool
    why: str
    """What it keeps out, or why it is not there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the launcher has each runner apply."""

    is_on: bool = True
    """Off, a runner is still a session and process group of its own, and has a cgroup if any."""
    core_dumps: bool = False
    models_path: Path | None = None
    """The store, whose blobs a runner without a model may read. `None` is nothing."""
    cgroups: CgroupTree | NotDelegated = dataclasses.field(
        default_factory=lambda: NotDelegated("the daemon has not asked for one")
    )

    def worker_arguments(self) -> list[str]:
        """Return what a new runner is told. Looks at the store: links in it may lead elsewhere."""
        arguments = ["--isolation", "auto" if self.is_on else "off"]
        if self.core_dumps:
            arguments.append("--core-dumps")
        for folder in self._readable() if self.is_on else ():
            arguments += ["--readable", str(folder)]
        return arguments

    def _readable(self) -> Iterator[Path]:
        if self.models_path is None:
            return
        blobs = self.models_path / "blobs"
        # Before the first blob there is no such folder, and a rule for it would be none; but what
        # is started now may stand by until there is.
        yield (blobs if blobs.is_dir() else self.models_path).resolve()
        yield from linked_folders(blobs)


def isolation_for(config: RunnerConfig, models_path: Path) -> Isolation:
    """Return the isolation that *config* asks for. Takes the delegated cgroup, if there is one."""
    return Isolation(
        is_on=config.isolation == "auto",
        core_dumps=config.core_dumps,
        models_path=models_path,
        cgroups=claim(own_group()),
    )


def linked_folders(blobs: Path) -> tuple[Path, ...]:
    """Return the folders that links among *blobs* lead to, at most LINKED_FOLDERS_MAX."""
    found: dict[Path, None] = {}
    try:
        with os.scandir(blobs) as entries:
            for entry in itertools.islice(entries, BLOBS_LOOKED_AT_MAX):
                if entry.is_symlink() and len(found) < LINKED_FOLDERS_MAX:
                    found[Path(entry.path).resolve().parent] = None
    except OSError:
        return ()  # No store yet; whoever needs it says so.
    return tuple(found)


def summary(features: Iterable[Feature]) -> str:
    """Return a line for the log: what is on, and why the rest is not."""
    features = list(features)
    on = ", ".join(feature.name for feature in features if feature.is_on)
    off = [f"no {feature.name} ({feature.why})" for feature in features if not feature.is_on]
    return "; ".join([f"runners are kept apart by {on}", *off])


def describe(isolation: Isolation) -> tuple[Feature, ...]:
    """Return every wall with whether it stands. What a runner really applied, it says in `Hello`.

    The kernel is asked, which takes microseconds.
    """
    return (
        Feature(Wall.PROCESS_GROUP, True, "a signal reaches a runner with all that it started"),
        Feature(Wall.DESCRIPTORS, True, "a runner has no open file but its socket and its log"),
        _cgroup(isolation.cgroups),
        *_kernels(isolation),
    )


def _cgroup(cgroups: CgroupTree | NotDelegated) -> Feature:
    if isinstance(cgroups, NotDelegated):
        return Feature(Wall.CGROUP, False, f"{cgroups.why}; memory is bounded by planning alone")
    controllers = ", ".join(sorted(cgroups.controllers)) or "none"
    return Feature(Wall.CGROUP, True, f"each runner has its own; controllers: {controllers}")


def _kernels(isolation: Isolation) -> Iterator[Feature]:
    names = (
        Wall.CAPABILITIES,
        Wall.NO_NEW_PRIVILEGES,
        Wall.FILES,
        Wall.NETWORK,
        Wall.SCOPES,
        Wall.SYSTEM_CALLS,
        Wall.LIMITS,
        Wall.OOM_SCORE,
    )
    if not isolation.is_on:
        for name in (*names, Wall.CORE_DUMPS):
            yield Feature(name, False, "turned off by runner.isolation")
        return
    abi = landlock.abi_version()
    offered = f"Landlock version {abi}" if abi else "the kernel offers no Landlock"
    yield Feature(Wall.CAPABILITIES, True, "of root's rights only those over files are left")
    yield Feature(Wall.NO_NEW_PRIVILEGES, True, "a runner gains no rights by starting a program")
    yield Feature(Wall.FILES, abi > 0, f"{offered}; libraries, devices and its own model only")
    yield _since(Wall.NETWORK, abi, landlock.NETWORK_ABI, "no TCP")
    yield _since(Wall.SCOPES, abi, landlock.SCOPES_ABI, "no abstract sockets of others, no signals")
    yield _system_calls()
    yield Feature(Wall.LIMITS, True, "few open files")
    yield Feature(
        Wall.OOM_SCORE, True, "short of memory, the kernel ends a runner before the daemon"
    )
    why = "turned off by runner.core_dumps" if isolation.core_dumps else "memory holds prompts"
    yield Feature(Wall.CORE_DUMPS, not isolation.core_dumps, why)


def _since(name: Wall, abi: int, needed: int, what: str) -> Feature:
    if abi >= needed:
        return Feature(name, True, what)
    return Feature(name, False, f"needs Landlock version {needed}, the kernel offers {abi}")


def _system_calls() -> Feature:
    if seccomp.machine() is None:
        return Feature(Wall.SYSTEM_CALLS, False, f"no filter is known for {platform.machine()}")
    if not seccomp.is_offered():
        return Feature(Wall.SYSTEM_CALLS, False, "the kernel offers no filter of system calls")
    return Feature(Wall.SYSTEM_CALLS, True, "no programs, no processes, no connections, no mounts")
