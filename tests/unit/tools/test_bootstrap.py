"""A set-up is skipped only when nothing that it depends on has changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import bootstrap, machine

STAGES = ["runtime", "dev"]


def a_checkout(root: Path) -> Path:
    (root / "requirements").mkdir()
    (root / "pyproject.toml").write_text("", encoding="utf-8")
    for name in [*bootstrap.STAGES["runtime"], *bootstrap.STAGES["dev"]]:
        (root / "requirements" / name).write_text(name, encoding="utf-8")
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for stage in STAGES:
        stamp = bootstrap.wanted_stamp(root, stage, {})
        bootstrap.stamp_path(root, stage).write_text(stamp, encoding="ascii")
    return root


def test_a_stamped_checkout_is_ready(tmp_path: Path) -> None:
    assert bootstrap.is_ready(a_checkout(tmp_path), STAGES, {})


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt", "llama.txt", "embedded.txt"])
def test_a_changed_lock_makes_the_runtime_stale(tmp_path: Path, name: str) -> None:
    root = a_checkout(tmp_path)

    (root / "requirements" / name).write_text("changed", encoding="utf-8")

    assert not bootstrap.is_ready(root, ["runtime"], {})
    assert bootstrap.is_ready(root, ["dev"], {})


def test_a_changed_patch_of_llama_cpp_makes_it_stale(tmp_path: Path) -> None:
    """Without it, whoever pulls a new patch goes on with the old build and never knows."""
    root = a_checkout(tmp_path)

    (root / "tools" / "patches").mkdir(parents=True)
    (root / "tools" / "patches" / "1-fast.patch").write_text("new", encoding="utf-8")

    assert not bootstrap.is_ready(root, ["runtime"], {})


def test_a_changed_development_lock_leaves_the_runtime_ready(tmp_path: Path) -> None:
    root = a_checkout(tmp_path)

    (root / "requirements" / "dev.txt").write_text("changed", encoding="utf-8")

    assert bootstrap.is_ready(root, ["runtime"], {})
    assert not bootstrap.is_ready(root, STAGES, {})


@pytest.mark.parametrize("environ", [{"OLLAMAD_FLAVOUR": "cuda"}, {"CMAKE_ARGS": "-DX=ON"}])
def test_another_wish_for_llama_makes_it_stale(tmp_path: Path, environ: dict[str, str]) -> None:
    assert not bootstrap.is_ready(a_checkout(tmp_path), ["runtime"], environ)


def test_another_processor_makes_it_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder may be shared by machines, and a disk may move."""
    root = a_checkout(tmp_path)
    monkeypatch.setattr(machine, "cpu_flags_hash", lambda: "another")

    assert not bootstrap.is_ready(root, ["runtime"], {})


def test_a_python_that_went_away_makes_it_stale(tmp_path: Path) -> None:
    root = a_checkout(tmp_path)
    python = root / ".venv" / "bin" / "python"

    python.unlink()
    python.symlink_to(tmp_path / "gone")

    assert not bootstrap.is_ready(root, ["runtime"], {})


def test_a_stamp_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    root = a_checkout(tmp_path)
    bootstrap.stamp_path(root, "runtime").write_bytes(b"\xff")

    assert not bootstrap.is_ready(root, ["runtime"], {})


def test_a_missing_lock_is_named(tmp_path: Path) -> None:
    root = a_checkout(tmp_path)
    (root / "requirements" / "dev.txt").unlink()

    with pytest.raises(machine.SetupError, match=r"dev\.txt"):
        bootstrap.is_ready(root, ["dev"], {})


def test_what_is_missing_ends_the_set_up_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = a_checkout(tmp_path)
    bootstrap.stamp_path(root, "runtime").unlink()
    monkeypatch.setattr(bootstrap, "ROOT", root)
    monkeypatch.setattr(machine, "find_compiler", lambda: None)

    assert bootstrap.main([]) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bootstrap: missing: a C++ compiler. Install with: ")
    assert captured.err.count("\n") == 1
