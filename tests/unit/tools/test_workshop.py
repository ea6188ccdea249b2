"""Sources are unpacked only where they belong."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tools import workshop
from tools.machine import SetupError


def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))

    with pytest.raises(SetupError):
        workshop.unpack(archive, tmp_path / "in")
    assert not (tmp_path / "outside").exists()


def test_a_cut_archive_is_refused_with_its_name(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"\x1f\x8bcut")

    with pytest.raises(SetupError, match=r"x\.tar\.gz.*delete it and try again"):
        workshop.unpack(archive, tmp_path / "in")
