"""A filter of system calls that a runner gives itself: what computing never needs is refused.

The filter is a short program for the kernel's packet filter, put together here by hand, because
it has one shape: a list of numbers, and three calls whose first arguments matter. Refused calls
fail with EPERM, so that a library that only tries goes on; `clone3` with ENOSYS, because its flags
are out of the filter's sight and the C library then uses `clone`.

Assembling is pure. Chosen against a list of what is allowed: what the drivers of GPUs call changes
with their versions, and a runner that a driver update breaks is worth less than the difference.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

_REFUSED: Final[Mapping[str, tuple[int | None, int | None]]] = MappingProxyType(
    {
        # Other programs and processes.
        "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
        "kcmp": (312, 272), "pidfd_getfd": (438, 438),
        # Connections: a runner has the one that it was given.
        "connect": (42, 203),
        # Namespaces and mounts.
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
        "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
        "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
        "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
        "open_by_handle_at": (304, 265),
        # Interfaces of the kernel with a history of holes.
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
        "request_key": (249, 218), "personality": (135, 92), "fanotify_init": (300, 262),
        # The machine.
        "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
        "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
        "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89),
        "quotactl": (179, 60), "settimeofday": (164, 170), "clock_settime": (227, 112),
        "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
        "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    }
)  # fmt: skip
"""Numbers on x86-64 and on 64-bit ARM; `None` where there is no such call."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What the filter must know of an architecture."""

    audit_arch: int
    column: int
    """Of the numbers in the tables."""
    seccomp: int
    socket: int
    clone: int
    foreign_from: int
    """Numbers from here on are another interface's (x32 on x86-64)."""


MACHINES: Final[Mapping[str, Machine]] = MappingProxyType(
    {
        "x86_64": Machine(0xC000003E, 0, 317, 41, 56, 0x4000_0000),
        "aarch64": Machine(0xC00000B7, 1, 277, 198, 220, 0x4000_0000),
    }
)
_CLONE3: Final = 435

_AF_UNIX: Final = 1
_SOCK_STREAM: Final = 1
_SOCK_SEQPACKET: Final = 5
_SOCK_TYPE_MASK: Final = 0xF
_CLONE_THREAD: Final = 0x10000

# Instructions of the classic packet filter, and offsets in what the kernel shows of a call.
_LOAD: Final = 0x20
_AND: Final = 0x54
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_NUMBER: Final = 0
_ARCH: Final = 4
_FIRST_ARGUMENT: Final = 16
_SECOND_ARGUMENT: Final = 24
_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000
_JUMP_MAX: Final = 255

_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1
_FLAG_SPEC_ALLOW: Final = 1 << 2
"""Older kernels slow speculation down in every filtered process. A runner interprets nobody's code,
and its sums must not pay for that."""
_GET_ACTION_AVAIL: Final = 2
_PR_SET_NO_NEW_PRIVS: Final = 38

Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand."""


def machine() -> Machine | None:
    """Return this machine's facts; `None` where the filter is not known to fit."""
    return MACHINES.get(platform.machine())


def refused_numbers(of: Machine) -> tuple[int, ...]:
    """Return the numbers of the calls that are refused whatever their arguments."""
    columns = (numbers[of.column] for numbers in _REFUSED.values())
    return tuple(sorted(number for number in columns if number is not None))


def program(of: Machine) -> list[Instruction]:
    """Return the filter.

    1. A call of another architecture's interface: refuse.
    2. `clone3`: not there.
    3. A socket other than a Unix one that must be connected before it sends: refuse. (CUDA binds
       such a one; connecting is on the list.)
    4. A new process instead of a new thread: refuse.
    5. One of the list: refuse.
    6. Anything else: allow.
    """
    refuse: Instruction = (_RETURN, 0, 0, _FAIL | errno.EPERM)
    allow: Instruction = (_RETURN, 0, 0, _ALLOW)
    head: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, of.audit_arch),
        refuse,
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, of.foreign_from),
        refuse,
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
    ]
    sockets: list[Instruction] = [
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_EQUAL, 0, 4, _AF_UNIX),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        (_JUMP_EQUAL, 2, 0, _SOCK_STREAM),
        (_JUMP_EQUAL, 1, 0, _SOCK_SEQPACKET),
        refuse,
        allow,
    ]
    clones: list[Instruction] = [
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_AND, 0, 0, _CLONE_THREAD),
        (_JUMP_EQUAL, 1, 0, _CLONE_THREAD),
        refuse,
        allow,
    ]
    numbers = refused_numbers(of)
    assert len(numbers) <= _JUMP_MAX  # noqa: S101 - a jump has one byte
    listed: list[Instruction] = [
        (_JUMP_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)
    ]
    return [
        *head,
        (_JUMP_EQUAL, 0, len(sockets), of.socket),
        *sockets,
        (_JUMP_EQUAL, 0, len(clones), of.clone),
        *clones,
        *listed,
        allow,
        refuse,
    ]


def assemble(instructions: Sequence[Instruction]) -> bytes:
    """Return the program as the kernel reads it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def is_offered() -> bool:
    """The kernel can filter calls so that they fail with an error, here and now."""
    here = machine()
    if here is None:
        return False
    action = ctypes.c_uint32(_FAIL)
    libc = ctypes.CDLL(None, use_errno=True)
    asked = libc.syscall(
        ctypes.c_long(here.seccomp), ctypes.c_long(_GET_ACTION_AVAIL), 0, ctypes.byref(action)
    )
    return int(asked) == 0


def forbid_new_privileges() -> None:
    """No program that this process starts gains rights by set-user-id. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero):
        raise _last_error()


def install(of: Machine) -> None:
    """Filter all threads of this process from now on. Raises OSError; needs `no_new_privs`."""
    code = assemble(program(of))
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a length of 16 bits, padding, a pointer.
    attributes = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _FLAG_TSYNC | _FLAG_SPEC_ALLOW
    result = int(
        libc.syscall(
            ctypes.c_long(of.seccomp),
            ctypes.c_long(_SET_MODE_FILTER),
            ctypes.c_long(flags),
            attributes,
        )
    )
    if result:
        # Above 0 it is a thread that could not be filtered, because it has another filter.
        raise _last_error() if result < 0 else OSError(errno.EBUSY, f"thread {result} has its own")


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
