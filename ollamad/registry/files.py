"""`Files`: the few ways in which the store changes the disk, and what a refusal means to people.

The one seam of the store: tests replace it to fail at the n-th change. Reading needs no seam.
Every change that must survive a power cut is followed by a sync, of the file and of its folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ollamad.errors import StorageFailed

FOLDER_MODE: Final = 0o755
FILE_MODE: Final = 0o644
TEMPORARY_PREFIX: Final = ".ollamad-tmp-"
"""Files not yet complete. Ollama skips such names among manifests and prunes them among blobs."""

_FICLONE: Final = 0x40049409  # <linux/fs.h>; Python's fcntl names it only from 3.12 on.

_ADVICE: Final = {
    errno.ENOSPC: "the disk is full: free some space, or delete models that are not needed",
    errno.EDQUOT: "the disk quota is used up: delete models that are not needed",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied: the daemon's user must be able to write there",
    errno.EPERM: "permission denied: the daemon's user must be able to write there",
    errno.EIO: "the disk reported an error: check it and the system's log",
}


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn an OSError into StorageFailed that says what was being done, and what may help."""
    try:
        yield
    except OSError as exc:
        reason = _ADVICE.get(exc.errno or 0) or exc.strerror or type(exc).__name__
        raise StorageFailed(f"cannot {doing}: {reason}") from exc


def temporary_in(folder: Path) -> Path:
    """Return a new name in *folder* for a file that is not yet complete."""
    return folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"


class Files:
    """Changes to the disk. All raise OSError; callers translate."""

    def make_folder(self, path: Path) -> None:
        """Make *path* and what is missing above it, and sync each new entry."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(FOLDER_MODE)
            path.chmod(FOLDER_MODE)  # Whatever the umask: other users may read models.
        self.sync_folder(path.parent)

    def create(self, path: Path) -> int:
        """Create *path*, which must not exist, and return its descriptor, to read and write."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, FILE_MODE)
        os.fchmod(fd, FILE_MODE)
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of *data*."""
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]

    def sync(self, fd: int) -> None:
        """Wait until the file's content is on the disk."""
        os.fsync(fd)

    def sync_folder(self, path: Path) -> None:
        """Wait until the folder's entries are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its final name, in place of what has it."""
        old.rename(new)

    def link(self, old: Path, new: Path) -> None:
        """Give the file a second name."""
        new.hardlink_to(old)

    def clone(self, source_fd: int, fd: int) -> None:
        """Make *fd* share the blocks of *source_fd*. Most file systems refuse."""
        fcntl.ioctl(fd, _FICLONE, source_fd)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()
