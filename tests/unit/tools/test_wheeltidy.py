"""The wheel ends up with what is loaded, where it is looked for, and a true RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from tools import wheeltidy
from tools.machine import SetupError

RECORD = "llama_cpp_python-1.dist-info/RECORD"
PORTABLE = {
    "bin/libggml-cpu-zen4.so": b"zen4",
    "bin/llama-tool": b"tool",
    "lib/libllama.so": b"llama",
    "include/llama.h": b"header",
    "llama_cpp/__init__.py": b"code",
    "llama_cpp/lib/libllama.so": b"llama",
    RECORD: b"old",
}


def a_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "llama_cpp_python-1-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return path


def test_back_ends_move_beside_the_library_that_loads_them(tmp_path: Path) -> None:
    tidied = wheeltidy.tidy(a_wheel(tmp_path, PORTABLE), tmp_path / "out")

    with zipfile.ZipFile(tidied) as wheel:
        assert sorted(wheel.namelist()) == [
            "llama_cpp/__init__.py",
            "llama_cpp/lib/libggml-cpu-zen4.so",
            "llama_cpp/lib/libllama.so",
            RECORD,
        ]
        assert wheel.read("llama_cpp/lib/libggml-cpu-zen4.so") == b"zen4"


def test_the_record_tells_the_hash_and_size_of_every_file(tmp_path: Path) -> None:
    tidied = wheeltidy.tidy(a_wheel(tmp_path, PORTABLE), tmp_path / "out")

    with zipfile.ZipFile(tidied) as wheel:
        rows = list(csv.reader(io.StringIO(wheel.read(RECORD).decode())))
        assert rows.pop() == [RECORD, "", ""]
        assert {row[0] for row in rows} == set(wheel.namelist()) - {RECORD}
        for name, digest, size in rows:
            data = wheel.read(name)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={encoded}", len(data))


def test_a_back_end_that_is_there_already_is_not_written_twice(tmp_path: Path) -> None:
    files = {**PORTABLE, "llama_cpp/lib/libggml-cpu-zen4.so": b"zen4"}

    tidied = wheeltidy.tidy(a_wheel(tmp_path, files), tmp_path / "out")

    with zipfile.ZipFile(tidied) as wheel:
        assert wheel.namelist().count("llama_cpp/lib/libggml-cpu-zen4.so") == 1


@pytest.mark.parametrize("left_out", [RECORD, "llama_cpp/lib/libllama.so"])
def test_a_wheel_without_libraries_or_record_is_refused(tmp_path: Path, left_out: str) -> None:
    files = {RECORD: b"", "llama_cpp/lib/libllama.so": b"llama"}
    del files[left_out]

    with pytest.raises(SetupError):
        wheeltidy.tidy(a_wheel(tmp_path, files), tmp_path / "out")


def test_something_that_is_no_wheel_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.whl"
    path.write_bytes(b"PK\x03\x04cut")

    with pytest.raises(SetupError, match=r"cut\.whl"):
        wheeltidy.tidy(path, tmp_path / "out")
