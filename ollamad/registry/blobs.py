"""`Blobs`: content-addressed files, and `BlobWriter`, which hashes while it writes.

Owns the `blobs` folder. A blob is complete or absent: its name appears by a rename, after a sync.
Which blobs are needed is not known here; the store knows the manifests.

A blob that was just offered (uploaded, written, or found present for an upload) is *fresh* until a
manifest names it, for an hour at most: deleting a model meanwhile leaves it alone, because a
`create` that needs it is probably on its way.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

from ollamad.errors import BlobNotFound, InvalidDigest, ModelCorrupt, ProtocolBroken, StorageFailed
from ollamad.registry.digests import Digest
from ollamad.registry.files import Files, temporary_in, translated
from ollamad.units import MIB

GRACE_S: Final = 3600.0
"""How long a blob that no manifest names is kept. The same as Ollama's."""
FRESH_MAX: Final = 65_536
"""Fresh blobs remembered; the oldest is forgotten first."""
_CHUNK_BYTES: Final = 1 * MIB

_NO_LINK: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
)
_NO_CLONE: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS,
     errno.ETXTBSY, errno.EBADF}
)  # fmt: skip


class Blobs:
    """The blobs below one folder. Methods may be called from several threads."""

    def __init__(self, folder: Path, files: Files, lock: threading.RLock) -> None:
        self.folder = folder
        self._files = files
        self._lock = lock
        self._fresh: dict[Digest, float] = {}
        self._unfinished: set[Path] = set()

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies, or would lie."""
        return self.folder / digest.file_name

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there."""
        return self.size(digest) is not None

    def size(self, digest: Digest) -> int | None:
        """Return the blob's bytes, or None if it is not there. Raises StorageFailed."""
        try:
            status = self.path(digest).stat()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StorageFailed(f"cannot look at blob {digest}: {exc.strerror}") from exc
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def read(self, digest: Digest, bytes_max: int) -> bytes:
        """Return a small blob's content.

        Raises BlobNotFound, StorageFailed, and ModelCorrupt if it is larger than *bytes_max*.
        """
        size = self.size(digest)
        if size is None:
            raise BlobNotFound(f'blob "{digest}" not found')
        if size > bytes_max:
            raise ModelCorrupt(f"blob {digest} has {size} bytes, at most {bytes_max} are read")
        with translated(f"read blob {digest}"), self.path(digest).open("rb") as file:
            return file.read(bytes_max)

    def open_writer(self, expected: Digest | None) -> BlobWriter:
        """Return a writer for a new blob. Raises StorageFailed."""
        return BlobWriter(self, self._files, expected)

    def put_bytes(self, data: bytes) -> tuple[Digest, int]:
        """Store *data* and return its digest and size."""
        with self.open_writer(None) as writer:
            writer.write(data)
            return writer.commit()

    def adopt(self, path: Path, *, may_link: bool) -> tuple[Digest, int]:
        """Store the content of a file that stays where it is; return its digest and size.

        1. With *may_link*, a second name for the same file: only for a file that nobody edits in
           place, since an edit would silently change the blob.
        2. Shared blocks, where the file system has them.
        3. A copy.

        The file itself is never changed. Raises StorageFailed.
        """
        with translated(f"read {path}"):
            source_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(source_fd).st_mode):
                raise StorageFailed(f"cannot read {path}: it is not a regular file")
            linked = self._adopt_by_link(path, source_fd) if may_link else None
            if linked is not None:
                return linked
            with self.open_writer(None) as writer:
                writer.fill_from(source_fd, path)
                return writer.commit()
        finally:
            os.close(source_fd)

    def _adopt_by_link(self, path: Path, source_fd: int) -> tuple[Digest, int] | None:
        with translated(f"store {path}"):
            self._files.make_folder(self.folder)
        temporary = temporary_in(self.folder)
        self._unfinished.add(temporary)
        try:
            # The resolved path: a link to a symbolic link would be a symbolic link.
            self._files.link(path.resolve(), temporary)
            before = temporary.stat()
            if not os.path.samestat(before, os.fstat(source_fd)):
                return None  # The file was replaced just now: copy what we have open.
            with translated(f"read {path}"):
                digest = _hashed(source_fd)
            after = temporary.stat()
            if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
                raise StorageFailed(f"cannot store {path}: it changed while it was read, try again")
            self.keep(temporary, digest, after.st_size)
        except OSError as exc:
            if exc.errno not in _NO_LINK:
                raise StorageFailed(f"cannot store {path}: {exc.strerror}") from exc
            return None
        else:
            return digest, after.st_size
        finally:
            self.discard(temporary)

    def keep(self, temporary: Path, digest: Digest, size: int) -> None:
        """Give a complete, synced temporary file its name, or drop it if the blob is there."""
        with self._lock, translated(f"store blob {digest}"):
            # A blob of another size is the rest of some accident: the good one replaces it.
            if self.size(digest) != size:
                self._files.rename(temporary, self.path(digest))
                self._files.sync_folder(self.folder)
            self.touch(digest)

    def started(self, temporary: Path) -> None:
        """Note a file being written, so that a sweep leaves it alone."""
        self._unfinished.add(temporary)

    def is_unfinished(self, temporary: Path) -> bool:
        """Return whether somebody is writing this file now."""
        return temporary in self._unfinished

    def discard(self, temporary: Path) -> None:
        """Remove a temporary file if it is still there. Never raises: a sweep would find it."""
        self._unfinished.discard(temporary)
        with contextlib.suppress(OSError):
            temporary.unlink()

    def touch(self, digest: Digest) -> None:
        """Make the blob fresh. Raises BlobNotFound."""
        with self._lock:
            if not self.has(digest):
                raise BlobNotFound(f'blob "{digest}" not found')
            path = self.path(digest)
            with translated(f"use blob {digest}"):
                status = path.lstat()
                # A link shares its times with a file that is not ours to change.
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    with contextlib.suppress(PermissionError):  # A blob of another user's Ollama.
                        os.utime(path)
            self._fresh.pop(digest, None)
            while len(self._fresh) >= FRESH_MAX:
                del self._fresh[next(iter(self._fresh))]
            self._fresh[digest] = time.monotonic()

    def settle(self, digests: Iterable[Digest]) -> None:
        """A manifest names these now: they are no longer fresh."""
        with self._lock:
            for digest in digests:
                self._fresh.pop(digest, None)

    def is_fresh(self, digest: Digest) -> bool:
        """Return whether the blob was offered lately and no manifest has named it since."""
        offered_at = self._fresh.get(digest)
        return offered_at is not None and time.monotonic() - offered_at < GRACE_S

    def remove(self, digest: Digest) -> bool:
        """Remove a blob; return whether it was there. Raises StorageFailed."""
        with self._lock:
            try:
                self._files.remove(self.path(digest))
            except FileNotFoundError:
                return False
            except OSError as exc:
                raise StorageFailed(f"cannot remove blob {digest}: {exc.strerror}") from exc
            self._fresh.pop(digest, None)
            return True


class BlobWriter:
    """Writes one blob: `write` pieces, then `commit`. Leaving its block without that drops it.

    One thread at a time. Nothing is visible in the store before `commit` returns.
    """

    def __init__(self, blobs: Blobs, files: Files, expected: Digest | None) -> None:
        self._blobs = blobs
        self._files = files
        self._expected = expected
        self._hash = hashlib.sha256()
        self._size = 0
        self._temporary = temporary_in(blobs.folder)
        self._doing = f"store blob {expected}" if expected else "store a blob"
        self._fd: int | None = None
        blobs.started(self._temporary)
        try:
            with translated(self._doing):
                files.make_folder(blobs.folder)
                self._fd = files.create(self._temporary)
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Add *data*. Raises StorageFailed, and the blob is dropped."""
        fd = self._open_fd()
        try:
            with translated(self._doing):
                self._files.write(fd, data)
        except BaseException:
            self.abort()
            raise
        self._hash.update(data)
        self._size += len(data)

    def fill_from(self, source_fd: int, source: Path) -> None:
        """Take all of an open file, by shared blocks if possible. Raises StorageFailed."""
        fd = self._open_fd()
        try:
            self._files.clone(source_fd, fd)
        except OSError as exc:
            if exc.errno not in _NO_CLONE:
                self.abort()
                raise StorageFailed(f"cannot store {source}: {exc.strerror}") from exc
            with translated(f"read {source}"):
                os.lseek(source_fd, 0, os.SEEK_SET)
            while piece := self._read(source_fd, source):
                self.write(piece)
        else:
            # What was cloned is hashed, not the source, which may change meanwhile.
            while piece := self._read(fd, source):
                self._hash.update(piece)
                self._size += len(piece)

    @staticmethod
    def _read(fd: int, source: Path) -> bytes:
        with translated(f"read {source}"):
            return os.read(fd, _CHUNK_BYTES)

    def commit(self) -> tuple[Digest, int]:
        """Make the blob part of the store; return its digest and size.

        Raises InvalidDigest if the content is not what was expected, and StorageFailed. Then
        nothing is stored.
        """
        fd = self._open_fd()
        digest = Digest(self._hash.hexdigest())
        try:
            if self._expected is not None and digest != self._expected:
                raise InvalidDigest(f'digest mismatch, expected "{self._expected}", got "{digest}"')
            with translated(self._doing):
                self._files.sync(fd)
            self._blobs.keep(self._temporary, digest, self._size)
        finally:
            self.abort()  # After `keep`, only the descriptor is left to close.
        return digest, self._size

    def abort(self) -> None:
        """Drop what was written. Idempotent, and of no effect after `commit`."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        self._blobs.discard(self._temporary)

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ProtocolBroken("this blob was already stored or dropped")
        return self._fd


def _hashed(fd: int) -> Digest:
    seen = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    while piece := os.read(fd, _CHUNK_BYTES):
        seen.update(piece)
    return Digest(seen.hexdigest())
