"""What this process uses of main memory, and what it has been promised, as /proc counts it.

A context's cache and the room for computing are asked for at once and touched bit by bit, some of
it only by the first large batch. What was promised and not touched yet is no less spoken for.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

from ollamad.buffersizes import BufferSizes
from ollamad.runners.protocol import MemoryUse
from ollamad.units import KIB, MIB

PROMISE_BYTES_MIN: Final = MIB
"""Smaller mappings are not looked at: what is left of them untouched is nothing to plan with."""
STACK_BYTES_DEFAULT: Final = 8 * MIB
"""A thread's stack, which is never touched to its end, where the system names no limit."""
_SMAPS: Final = Path("/proc/self/smaps")
_STATUS: Final = Path("/proc/self/status")
_ANONYMOUS_FIELDS: Final = 5
"""Fields of a mapping's first line where it has no name."""


def memory_use(
    promised_before: int = 0, buffers: BufferSizes | None = None, later_bytes: int = 0
) -> MemoryUse:
    """Return what is used now.

    *promised_before* is what had been promised before the model came: to libraries, which reserve
    more than they ever use. *later_bytes* is what the engine has not asked the system for yet and
    will; it counts as promised.
    """
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())

    def in_bytes(name: str) -> int:
        return int(fields[name].split()[0]) * KIB

    return MemoryUse(
        anonymous_bytes=in_bytes("RssAnon") + in_bytes("RssShmem"),
        file_bytes=in_bytes("RssFile"),
        promised_bytes=max(promised_bytes() - promised_before, 0) + later_bytes,
        buffers=buffers,
    )


def promised_bytes() -> int:
    """Return what mappings of this process may still take: their size, less what is in."""
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stack_bytes = STACK_BYTES_DEFAULT if limit == resource.RLIM_INFINITY else limit
    return promised_in(_SMAPS.read_text(), stack_bytes)


def promised_in(smaps: str, stack_bytes: int = STACK_BYTES_DEFAULT) -> int:
    """Return what the anonymous, private, writable mappings of *smaps* may still take.

    A mapping right behind a guard page begins with a thread's stack of *stack_bytes*; the kernel
    may have joined it with a buffer that lies behind it. One of just that size is a stack, too:
    buffers of the allocator have a header beside their contents.
    """
    promised = size_bytes = 0
    is_ours = is_stack = False
    guard_end = ""
    for line in smaps.splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            begin, _, end = name.partition("-")
            is_ours = rest[0] == "rw-p" and len(rest) + 1 == _ANONYMOUS_FIELDS and rest[3] == "0"
            is_stack = begin == guard_end
            guard_end = end if rest[0] == "---p" else ""
        elif is_ours and name == "Size:":
            size_bytes = int(rest[0]) * KIB
            size_bytes -= stack_bytes if is_stack or size_bytes == stack_bytes else 0
        elif is_ours and name == "Rss:" and size_bytes >= PROMISE_BYTES_MIN:
            promised += max(size_bytes - int(rest[0]) * KIB, 0)
    return promised
