"""What this process uses of main memory for its model, and what it has been promised.

A context's cache and the room for computing are asked for at once and touched bit by bit, some of
it only by the first large batch. What was promised and not touched yet is no less spoken for.

Of mapped files only those count that came with the model. How much of the libraries is mapped
depends on the page cache's pieces, and differs by megabytes between two processes that do the same.
"""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ollamad.buffersizes import BufferSizes
from ollamad.runners.procmemory import own_memory_bytes
from ollamad.runners.protocol import MemoryUse
from ollamad.units import KIB, MIB

PROMISE_BYTES_MIN: Final = MIB
"""Smaller mappings are not looked at: what is left of them untouched is nothing to plan with."""
STACK_BYTES_DEFAULT: Final = 8 * MIB
"""A thread's stack, which is never touched to its end, where the system names no limit."""
_SMAPS: Final = Path("/proc/self/smaps")
_FIELDS: Final = 6
"""Fields of a mapping's first line: addresses, mode, offset, device, inode, name. A name may have
spaces; where there is none, there are five fields."""
_NO_FILES: Final = ("/memfd:", "/SYSV", "/dev/")
"""Shared memory and devices have paths, too. The first is counted as the process's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryBefore:
    """What the process had before its model came."""

    promised_bytes: int = 0
    """To libraries, which reserve more than they ever use."""
    files: frozenset[str] = frozenset()
    """What was mapped."""


def memory_before() -> MemoryBefore:
    """Return what there is now, to be told apart from what comes with a model."""
    mappings = list(mappings_in(_SMAPS.read_text()))
    return MemoryBefore(
        promised_bytes=promised_in(mappings, _stack_bytes()),
        files=frozenset(mapping.file for mapping in mappings if mapping.file),
    )


def memory_use(
    before: MemoryBefore, buffers: BufferSizes | None = None, later_bytes: int = 0
) -> MemoryUse:
    """Return what is used now, on top of what there was *before*.

    *later_bytes* is what the engine has not asked the system for yet and will; it counts as
    promised.
    """
    mappings = list(mappings_in(_SMAPS.read_text()))
    return MemoryUse(
        anonymous_bytes=own_memory_bytes(),
        file_bytes=sum(
            mapping.rss_bytes
            for mapping in mappings
            if mapping.file and mapping.file not in before.files
        ),
        promised_bytes=max(promised_in(mappings, _stack_bytes()) - before.promised_bytes, 0)
        + later_bytes,
        buffers=buffers,
    )


@dataclasses.dataclass(slots=True)
class Mapping:
    """One mapping of /proc/PID/smaps."""

    is_private_and_writable: bool
    file: str
    """Its path; empty for memory without one."""
    name: str
    """As `file`, or what the kernel calls it, such as `[heap]`."""
    is_behind_guard: bool
    """It begins where a mapping ends that nobody may touch."""
    size_bytes: int = 0
    rss_bytes: int = 0


def mappings_in(smaps: str) -> Iterator[Mapping]:
    """Yield the mappings that *smaps* lists."""
    mapping: Mapping | None = None
    guard_end = ""
    for line in smaps.splitlines():
        key, *rest = line.split(maxsplit=_FIELDS - 1)
        if not key.endswith(":"):
            if mapping is not None:
                yield mapping
            begin, _, end = key.partition("-")
            mode, inode, name = rest[0], rest[3], "".join(rest[4:])
            mapping = Mapping(
                is_private_and_writable=mode == "rw-p",
                file=name if inode != "0" and not name.startswith(_NO_FILES) else "",
                name=name,
                is_behind_guard=begin == guard_end,
            )
            guard_end = end if mode == "---p" else ""
        elif mapping is not None and key == "Size:":
            mapping.size_bytes = int(rest[0]) * KIB
        elif mapping is not None and key == "Rss:":
            mapping.rss_bytes = int(rest[0]) * KIB
    if mapping is not None:
        yield mapping


def promised_in(mappings: list[Mapping], stack_bytes: int = STACK_BYTES_DEFAULT) -> int:
    """Return what the anonymous, private, writable *mappings* may still take.

    A mapping right behind a guard page begins with a thread's stack of *stack_bytes*; the kernel
    may have joined it with a buffer that lies behind it. One of just that size is a stack, too:
    buffers of the allocator have a header beside their contents.
    """
    promised = 0
    for mapping in mappings:
        if not mapping.is_private_and_writable or mapping.name:
            continue
        size_bytes = mapping.size_bytes
        if mapping.is_behind_guard or size_bytes == stack_bytes:
            size_bytes -= stack_bytes
        if size_bytes >= PROMISE_BYTES_MIN:
            promised += max(size_bytes - mapping.rss_bytes, 0)
    return promised


def _stack_bytes() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return STACK_BYTES_DEFAULT if limit == resource.RLIM_INFINITY else limit
