"""Which files of the blob folder can go: blobs no manifest names, and our stale temporaries.

Decides only; `Store.sweep` knows what is referenced and removes. Foreign files (the partial
downloads of an Ollama on the same store, say) are never listed.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Collection
from pathlib import Path

from ollamad.errors import InvalidDigest, StorageFailed
from ollamad.registry.digests import Digest
from ollamad.registry.files import TEMPORARY_PREFIX


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sweepings:
    """What one sweep found to remove."""

    blobs: tuple[Digest, ...] = ()
    temporaries: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What one sweep removed, and why it removed no blobs if it did not try."""

    blobs: tuple[Digest, ...] = ()
    temporaries: tuple[Path, ...] = ()
    freed_bytes: int = 0
    skipped: str = ""


def find_sweepings(folder: Path, referenced: Collection[Digest], *, before_s: float) -> Sweepings:
    """Return what in *folder* is not needed and has not changed since *before_s*.

    A file's age counts from its last change *or* its arrival in the folder: a hard link brings an
    old modification time with it. Raises StorageFailed.
    """
    blobs: list[Digest] = []
    temporaries: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                    continue
                if max(status.st_mtime, status.st_ctime) >= before_s:
                    continue
                if entry.name.startswith(TEMPORARY_PREFIX):
                    temporaries.append(Path(entry.path))
                elif (digest := _digest_of(entry.name)) and digest not in referenced:
                    blobs.append(digest)
    except FileNotFoundError:
        return Sweepings()
    except OSError as exc:
        raise StorageFailed(f"cannot list {folder}: {exc.strerror}") from exc
    return Sweepings(blobs=tuple(sorted(blobs)), temporaries=tuple(sorted(temporaries)))


def _digest_of(file_name: str) -> Digest | None:
    try:
        digest = Digest.parse(file_name)
    except InvalidDigest:
        return None
    return digest if digest.file_name == file_name else None
