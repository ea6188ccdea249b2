"""Landlock: which files, sockets and processes a thread may still reach, given away for good.

The kernel's interface by its system calls, which no library of ours wraps. Only files below named
paths can be opened, TCP is shut, and abstract sockets and signals stay within the domain, each as
far as the kernel knows it. A domain holds for the calling thread and for the threads and
processes it makes later; another call can only narrow it. What Landlock does not see: opening by a
descriptor that is held already, `stat`, UDP, and Unix sockets with a path.

Nothing here decides what is allowed; `ollamad.runners.worker.confine` does.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

# The same numbers on every architecture.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_FOR_FILES: Final = 1 | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""The rights that can be given on what is no folder."""

READ: Final = _READ_FILE | _READ_DIR
"""Open files for reading and list folders. Not: execute."""
READ_WRITE: Final = READ | _WRITE_FILE | _IOCTL_DEV
"""What a device node needs. Not: create, remove or cut anything."""
REWRITE: Final = READ | _WRITE_FILE | _TRUNCATE
"""Replace what is in a file, as opening it for writing usually does."""

_FILES_BY_ABI: Final[Mapping[int, int]] = MappingProxyType(
    {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: _IOCTL_DEV}
)
"""The rights over files that each version added."""
NETWORK_ABI: Final = 4
_NETWORK: Final = 0b11
"""Binding and connecting TCP."""
SCOPES_ABI: Final = 6
_SCOPES: Final = 0b11
"""Abstract Unix sockets and signals."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What may be done with a path and all below it. A path that is not there is no rule."""

    path: Path
    access: int
    """`READ`, `READ_WRITE` or `REWRITE`."""


def abi_version() -> int:
    """Return the version of Landlock that the kernel offers; 0 if it offers none."""
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0  # Not built in, not turned on, or hidden by a container's own filter.


def handled_files(abi: int) -> int:
    """Return the rights over files that version *abi* can refuse."""
    return sum(rights for since, rights in _FILES_BY_ABI.items() if since <= abi)


def restrict(rules: Iterable[Rule], abi: int) -> None:
    """Allow this thread what *rules* say, and no other file, TCP, abstract socket or signal.

    Needs `no_new_privs` to be set. Raises OSError, and then nothing has changed.
    """
    with _ruleset(abi) as ruleset:
        for rule in rules:
            _add(ruleset, rule, abi)
        _call(_RESTRICT_SELF, ruleset, 0)


@contextmanager
def _ruleset(abi: int) -> Iterator[int]:
    network = _NETWORK if abi >= NETWORK_ABI else 0
    scopes = _SCOPES if abi >= SCOPES_ABI else 0
    # An older kernel accepts a longer structure whose end it does not know if that end is zero.
    attributes = struct.pack("=QQQ", handled_files(abi), network, scopes)
    descriptor = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _add(ruleset: int, rule: Rule, abi: int) -> None:
    try:
        descriptor = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        access = rule.access & handled_files(abi)
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _FOR_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call. Raises OSError."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
