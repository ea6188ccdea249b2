from __future__ import annotations

import errno
import platform
import struct

import pytest

from ollamad.runners import seccomp
from ollamad.runners.seccomp import MACHINES, Instruction, Machine

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
NOT_THERE = 0x00050000 | errno.ENOSYS
X86 = MACHINES["x86_64"]
ARM = MACHINES["aarch64"]
BOTH = pytest.mark.parametrize("machine", [X86, ARM], ids=["x86-64", "aarch64"])


def verdict(
    program: list[Instruction], number: int, *arguments: int, arch: int | None = None
) -> int:
    """Run the filter as the kernel would."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    seen = struct.pack("<IIQ6Q", number, arch or 0, 0, *padded)
    value, place = 0, 0
    while True:
        operation, if_true, if_false, operand = program[place]
        place += 1
        match operation:
            case 0x20:
                (value,) = struct.unpack_from("<I", seen, operand)
            case 0x54:
                value &= operand
            case 0x15:
                place += if_true if value == operand else if_false
            case 0x35:
                place += if_true if value >= operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"no such instruction: {operation:#x}")


def asked(machine: Machine, number: int, *arguments: int) -> int:
    return verdict(seccomp.program(machine), number, *arguments, arch=machine.audit_arch)


@BOTH
def test_every_listed_call_is_refused_and_the_rest_allowed(machine: Machine) -> None:
    refused = set(seccomp.refused_numbers(machine))
    special = {machine.socket, machine.clone, 435}

    for number in range(600):
        if number not in special:
            assert asked(machine, number) == (REFUSE if number in refused else ALLOW), number


@BOTH
def test_threads_are_made_and_processes_are_not(machine: Machine) -> None:
    assert asked(machine, machine.clone, 0x3D0F00) == ALLOW  # What the C library's threads are.
    assert asked(machine, machine.clone, 17) == REFUSE  # SIGCHLD: a fork.
    assert asked(machine, machine.clone, 0x4111) == REFUSE  # A vfork.
    assert asked(machine, 435) == NOT_THERE


@BOTH
@pytest.mark.parametrize(
    ("family", "kind", "expected"),
    [
        (1, 1, ALLOW),
        (1, 5 | 0o2000000, ALLOW),
        (1, 2, REFUSE),
        (1, 3, REFUSE),  # The kernel makes it a datagram socket.
        (2, 1, REFUSE),
        (10, 2, REFUSE),
        (16, 3, REFUSE),
        (40, 1, REFUSE),
    ],
)
def test_of_sockets_there_are_only_unix_ones_that_must_be_connected(
    machine: Machine, family: int, kind: int, expected: int
) -> None:
    assert asked(machine, machine.socket, family, kind) == expected


@BOTH
def test_calls_of_another_interface_are_refused(machine: Machine) -> None:
    program = seccomp.program(machine)

    assert verdict(program, 1, arch=0x40000003) == REFUSE  # 32-bit x86.
    assert verdict(program, 0x40000000 | 1, arch=machine.audit_arch) == REFUSE  # x32.


@BOTH
def test_it_is_assembled_as_eight_bytes_an_instruction(machine: Machine) -> None:
    program = seccomp.program(machine)

    assert len(seccomp.assemble(program)) == 8 * len(program)
    assert seccomp.assemble(program[:1]) == struct.pack("=HBBI", 0x20, 0, 0, 4)


def test_another_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    assert seccomp.machine() is None
    assert not seccomp.is_offered()
