"""Make the llama.cpp wheel hold what ollamad loads, where it loads it, and nothing else.

As built, the wheel installs three top-level folders (`bin`, `lib`, `include`) into site-packages:
copies of the libraries, headers, and in the portable flavour the processor back ends, which are
then *not* beside the library that looks for them: every model load would fail.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Final

from tools.machine import SetupError

LIBRARIES: Final = "llama_cpp/lib/"
ENTRY_BYTES_MAX: Final = 4 << 30
COPY_BYTES: Final = 1 << 20

_BACKEND: Final = re.compile(r"bin/(libggml-[A-Za-z0-9_-]+\.so)")
_DROPPED: Final = ("bin/", "lib/", "include/")


def new_name(name: str) -> str | None:
    """Return where the file *name* of the wheel goes, or None if it is left out."""
    backend = _BACKEND.fullmatch(name)
    if backend:
        return LIBRARIES + backend[1]
    return None if name.startswith(_DROPPED) else name


def tidy(wheel: Path, folder: Path) -> Path:
    """Write a tidied copy of *wheel* into *folder* and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / wheel.name
    rows: list[tuple[str, str, str]] = []
    record = ""
    try:
        with (
            zipfile.ZipFile(wheel) as source,
            zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy,
        ):
            present = set(source.namelist())
            for entry in source.infolist():
                name = new_name(entry.filename)
                is_copy = name != entry.filename and name in present
                if name is None or is_copy or entry.is_dir():
                    continue
                if name.endswith(".dist-info/RECORD"):
                    record = name
                    continue
                rows.append((name, *_move(source, entry, copy, name)))
            if not record:
                raise SetupError(f"{wheel.name} has no RECORD: not a wheel; delete its folder")
            if not any(name.startswith(LIBRARIES) and ".so" in name for name, _, _ in rows):
                raise SetupError(f"{wheel.name} holds no library; the build went wrong")
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
            copy.writestr(record, text.getvalue())
    except (OSError, zipfile.BadZipFile, zlib.error) as exc:
        raise SetupError(f"cannot tidy {wheel}: {exc}; delete its folder and try again") from exc
    return target


def _move(
    source: zipfile.ZipFile, entry: zipfile.ZipInfo, copy: zipfile.ZipFile, name: str
) -> tuple[str, str]:
    """Copy one entry and return its hash and size as RECORD writes them."""
    if entry.file_size > ENTRY_BYTES_MAX:
        raise SetupError(f"{entry.filename} is larger than {ENTRY_BYTES_MAX} bytes")
    info = zipfile.ZipInfo(name, entry.date_time)
    info.external_attr = entry.external_attr
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = entry.file_size
    with source.open(entry) as data, copy.open(info, "w") as out:
        shutil.copyfileobj(data, out, COPY_BYTES)
    digest = hashlib.sha256()
    with source.open(entry) as data:
        while chunk := data.read(COPY_BYTES):
            digest.update(chunk)
    encoded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return f"sha256={encoded}", str(entry.file_size)
