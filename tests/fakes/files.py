"""`FaultyFiles`: the real changes to the disk, of which the n-th fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ollamad.registry.files import Files


class FaultyFiles(Files):
    """Counts changes; raises OSError instead of number *fails_at*, and of all after it if told.

    `done` lists the kinds of changes made, so that a test can learn how many there are.
    """

    def __init__(
        self, *, fails_at: int | None = None, code: int = errno.ENOSPC, lasting: bool = False
    ) -> None:
        self.fails_at = fails_at
        self.done: list[str] = []
        self._code = code
        self._lasting = lasting
        self._count = 0

    def _change(self, kind: str) -> None:
        number, self._count = self._count, self._count + 1
        if self.fails_at is not None and (
            number == self.fails_at or (self._lasting and number > self.fails_at)
        ):
            raise OSError(self._code, os.strerror(self._code))
        self.done.append(kind)

    def make_folder(self, path: Path) -> None:
        self._change("make_folder")
        super().make_folder(path)

    def create(self, path: Path) -> int:
        self._change("create")
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        half = len(data) // 2
        os.write(fd, data[:half])  # A full disk fails in the middle of a write.
        self._change("write")
        super().write(fd, memoryview(data)[half:])

    def sync(self, fd: int) -> None:
        self._change("sync")
        super().sync(fd)

    def sync_folder(self, path: Path) -> None:
        self._change("sync_folder")
        super().sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self._change("rename")
        super().rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        self._change("link")
        super().link(old, new)

    def remove(self, path: Path) -> None:
        self._change("remove")
        super().remove(path)


class CloningFiles(Files):
    """A file system with shared blocks, as far as a reader can tell: cloning copies."""

    def __init__(self) -> None:
        self.cloned = 0

    def clone(self, source_fd: int, fd: int) -> None:
        size = os.fstat(source_fd).st_size
        os.pwrite(fd, os.pread(source_fd, size, 0), 0)
        self.cloned += 1
