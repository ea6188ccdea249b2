"""A wheel is kept for exactly the machine and the wishes it was built for."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import os
from pathlib import Path

import pytest

from tools import wheelhouse
from tools.console import Progress, Runner
from tools.machine import SetupError
from tools.wheelhouse import Wheelhouse, WheelSpec

SPEC = WheelSpec("0.3.36", "native", ("-DX=ON",), "g++ 12", "abc", "x86_64")


def a_house(tmp_path: Path) -> Wheelhouse:
    runner = Runner(Progress(io.StringIO()), tmp_path / "log")
    return Wheelhouse(tmp_path / "wheels", tmp_path, runner, "/not/there")


def a_finished_wheel(tmp_path: Path, spec: WheelSpec) -> Path:
    wheel = tmp_path / "wheels" / spec.key / "x.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"")
    return wheel


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(WheelSpec)])
def test_every_part_of_a_spec_changes_its_key(field: str) -> None:
    values = dataclasses.asdict(SPEC)
    values[field] = ("-DY=ON",) if field == "cmake_arguments" else "other"

    assert WheelSpec(**values).key != SPEC.key


def test_a_key_is_one_plain_path_component() -> None:
    odd = dataclasses.replace(SPEC, version="1/../2", machine="a b")

    assert "/" not in odd.key
    assert " " not in odd.key
    assert not odd.key.startswith(".")


def test_the_flavour_is_native_unless_asked_otherwise() -> None:
    assert wheelhouse.flavour_of({}) == "native"
    assert wheelhouse.flavour_of({"OLLAMAD_FLAVOUR": " portable "}) == "portable"
    with pytest.raises(SetupError, match="choose one of native, portable, cuda"):
        wheelhouse.flavour_of({"OLLAMAD_FLAVOUR": "vulkan"})


def test_the_readers_own_cmake_arguments_come_last() -> None:
    arguments = wheelhouse.cmake_arguments("native", {"CMAKE_ARGS": "-DGGML_NATIVE=OFF '-DA=b c'"})

    assert arguments[-2:] == ("-DGGML_NATIVE=OFF", "-DA=b c")
    with pytest.raises(SetupError, match="mend its quotes"):
        wheelhouse.cmake_arguments("native", {"CMAKE_ARGS": "'"})


def test_every_flavour_says_how_long_it_takes() -> None:
    assert set(wheelhouse.EXPECTED) == set(wheelhouse.FLAVOURS)


def test_a_finished_wheel_is_taken_and_nothing_is_built(tmp_path: Path) -> None:
    wheel = a_finished_wheel(tmp_path, SPEC)

    assert a_house(tmp_path).wheel(SPEC) == wheel


def test_another_flavours_wheel_is_not_taken(tmp_path: Path) -> None:
    a_finished_wheel(tmp_path, SPEC)

    assert a_house(tmp_path).find(dataclasses.replace(SPEC, flavour="portable")) is None


def test_only_the_newest_keys_are_kept(tmp_path: Path) -> None:
    wheels = []
    for age in range(wheelhouse.WHEELS_KEPT_MAX + 2):
        wheel = a_finished_wheel(tmp_path, dataclasses.replace(SPEC, compiler=f"g++ {age}"))
        os.utime(wheel.parent, (1000 - age, 1000 - age))
        wheels.append(wheel)

    oldest = wheels[-1]
    oldest_spec = dataclasses.replace(SPEC, compiler=f"g++ {len(wheels) - 1}")
    assert a_house(tmp_path).wheel(oldest_spec) == oldest

    kept = [wheel for wheel in wheels if wheel.exists()]
    assert len(kept) == wheelhouse.WHEELS_KEPT_MAX
    assert oldest in kept  # Just used, whatever its age was.


def test_a_lock_held_by_another_run_is_told_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheelhouse, "LOCK_TIMEOUT_S", 0.0)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with (
            pytest.raises(SetupError, match="another run works, and did not finish"),
            wheelhouse.locked(tmp_path, Progress(io.StringIO()), "another run works"),
        ):
            pytest.fail("entered a lock that another holds")
    finally:
        os.close(other)


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    shown = io.StringIO()
    for _ in range(2):
        with wheelhouse.locked(tmp_path, Progress(shown), "busy"):
            pass
    assert shown.getvalue() == ""


def test_amx_is_kept_out_on_the_processors_that_could_have_it() -> None:
    arguments = wheelhouse.without_amx("x86_64")

    assert all("-mno-amx-tile" in argument for argument in arguments)
    assert [argument.split("=")[0] for argument in arguments] == [
        "-DCMAKE_C_FLAGS",
        "-DCMAKE_CXX_FLAGS",
    ]
    assert wheelhouse.without_amx("aarch64") == ()
