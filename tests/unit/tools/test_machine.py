"""What is missing is said in one line, with the command that mends it."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tools import machine
from tools.machine import Interpreter, SetupError

OLD = Interpreter("/usr/bin/python3", "/usr/bin/python3.9", (3, 9), True)
BARE = Interpreter("/usr/bin/python3", "/usr/bin/python3.11", (3, 11), False)
WHOLE = Interpreter("/usr/bin/python3.12", "/usr/bin/python3.12", (3, 12), True)


def an_executable(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_python_with_venv_is_chosen_before_one_without() -> None:
    assert machine.choose_interpreter([OLD, BARE, WHOLE]) == WHOLE
    assert machine.choose_interpreter([OLD, BARE]) == BARE
    assert machine.choose_interpreter([OLD]) is None
    assert machine.choose_interpreter([]) is None


def test_nothing_missing_needs_no_message() -> None:
    assert machine.missing_message(WHOLE, "/usr/bin/g++") is None


@pytest.mark.parametrize(
    ("chosen", "compiler", "packages"),
    [
        (None, "/usr/bin/g++", "python3 python3-venv"),
        (BARE, "/usr/bin/g++", "python3-venv"),
        (WHOLE, None, "g++"),
        (BARE, None, "python3-venv g++"),
        (None, None, "python3 python3-venv g++"),
    ],
)
def test_all_that_is_missing_is_one_line_with_one_command(
    chosen: Interpreter | None, compiler: str | None, packages: str
) -> None:
    message = machine.missing_message(chosen, compiler)

    assert message is not None
    assert message.endswith(f"apt install {packages}")
    assert "\n" not in message


def test_a_python_of_its_own_name_asks_for_its_own_venv_package() -> None:
    bare = Interpreter("/usr/bin/python3.13", "/usr/bin/python3.13", (3, 13), False)

    message = machine.missing_message(bare, "/usr/bin/g++")

    assert message is not None
    assert message.endswith("apt install python3.13-venv")


def test_root_is_not_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert machine.apt_command(["g++"]) == "apt install g++"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.apt_command(["g++"]) == "sudo apt install g++"


def test_a_shim_that_cannot_run_is_no_python(tmp_path: Path) -> None:
    shim = an_executable(tmp_path, "python3.13", "echo 'not installed' >&2; exit 127")

    assert machine.probe_interpreter(str(shim)) is None


def test_a_python_without_ensurepip_is_seen_to_lack_venv(tmp_path: Path) -> None:
    """Debian's own python3 says its version and then fails to import ensurepip."""
    bare = an_executable(tmp_path, "python3", "echo 3 11; echo /usr/bin/python3.11; exit 1")

    assert machine.probe_interpreter(str(bare)) == Interpreter(
        str(bare), "/usr/bin/python3.11", (3, 11), False
    )


def test_only_what_is_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_compiler() is None
    assert machine.find_interpreters() == []

    compiler = an_executable(tmp_path, "g++", "echo 'g++ (Debian) 12.2'; echo more")
    assert machine.find_compiler() == str(compiler)
    assert machine.compiler_version(str(compiler)) == "g++ (Debian) 12.2"


def test_a_compiler_that_fails_is_an_error_with_its_name(tmp_path: Path) -> None:
    broken = an_executable(tmp_path, "c++", "exit 3")

    with pytest.raises(SetupError, match=r"c\+\+ does not run"):
        machine.compiler_version(str(broken))


def test_needs_on_one_file_system_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 3 * machine.GiB))
    one, other = tmp_path / "not" / "there", tmp_path / "cache"

    machine.check_room({one: machine.GiB, other: 2 * machine.GiB})
    with pytest.raises(SetupError, match=r"3\.0 GiB free, 3\.1 GiB are needed"):
        machine.check_room({one: machine.GiB, other: int(2.1 * machine.GiB)})


def test_the_order_of_cpu_flags_does_not_matter_but_each_flag_does(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    first.write_text("processor : 0\nflags : avx fma\nbugs : x\n", encoding="utf-8")
    second.write_text("flags : fma avx\n\nflags : avx fma\n", encoding="utf-8")
    third.write_text("flags : fma avx avx2\n", encoding="utf-8")

    assert machine.cpu_flags_hash(first) == machine.cpu_flags_hash(second)
    assert machine.cpu_flags_hash(first) != machine.cpu_flags_hash(third)
    assert len(machine.cpu_flags_hash(tmp_path / "missing")) == 16


def test_a_relative_cache_home_is_ignored() -> None:
    assert machine.cache_home({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/ollamad")
    assert machine.cache_home({"XDG_CACHE_HOME": "relative"}).is_absolute()
