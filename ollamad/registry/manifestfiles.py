"""`ManifestFiles`: the `manifests` folder. Finds, reads, replaces and removes manifest files.

The folder is `<host>/<namespace>/<model>/<tag>`, as Ollama has it. Symbolic links below it are
not followed: a link would let a write or a removal leave the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from ollamad.errors import InvalidName, ModelCorrupt, ModelNotFound, StorageFailed
from ollamad.names import ModelName
from ollamad.registry.files import TEMPORARY_PREFIX, Files, temporary_in, translated
from ollamad.registry.manifest import MANIFEST_BYTES_MAX, Manifest, parse_manifest

MANIFESTS_MAX: Final = 65_536
"""Manifests one store may have; a folder of more is refused, not read for ever."""
FILE_NAME_BYTES_MAX: Final = 255
_DEPTH: Final = 4

Stamp: TypeAlias = tuple[int, int, int]
"""Changes whenever a manifest file does: modification time in ns, size, inode."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file with this status."""
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredManifest:
    """A manifest as it was read from its file."""

    name: ModelName
    manifest: Manifest
    digest: str
    """Hexadecimal SHA-256 of the file, without a prefix."""
    modified_at: datetime
    data: bytes
    """The file's bytes: a copy of a model copies these."""
    stamp: Stamp

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers and the config."""
        return self.manifest.size_bytes


class ManifestFiles:
    """The manifests below one folder. The store holds the lock that makes changes exclusive."""

    def __init__(self, folder: Path, files: Files) -> None:
        self.folder = folder
        self._files = files

    def path(self, name: ModelName) -> Path:
        """Return where the manifest lies, or would lie."""
        return self.folder / name.path

    def entries(self) -> Iterator[tuple[Path, ModelName | str]]:
        """Yield every file that is in a manifest's place, with its name or what is wrong with it.

        Raises StorageFailed.
        """
        for count, (path, is_link) in enumerate(self._walk(self.folder, 1), start=1):
            if count > MANIFESTS_MAX:
                raise StorageFailed(f"more than {MANIFESTS_MAX} manifests in {self.folder}")
            if is_link:
                yield path, "is a symbolic link, which is not followed"
                continue
            host, namespace, model, tag = path.relative_to(self.folder).parts
            try:
                yield path, ModelName(host=host, namespace=namespace, model=model, tag=tag)
            except InvalidName:
                yield path, "is not a model name"

    def _walk(self, folder: Path, depth: int) -> Iterator[tuple[Path, bool]]:
        """Yield every file at the depth of manifests, and every symbolic link (True)."""
        for entry in _listed(folder):
            if entry.is_symlink():
                yield Path(entry.path), True
            elif depth < _DEPTH and entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), depth + 1)
            elif depth == _DEPTH and entry.is_file(follow_symlinks=False):
                yield Path(entry.path), False

    def resolve(self, name: ModelName) -> ModelName:
        """Return the stored spelling of *name*, or *name* if no such model is stored.

        1. The very spelling asked for is stored.
        2. Of those that differ in case only, the first in the order of their spelling.
        """
        if self.exists(name):
            return name
        found = sorted(self._matching(self.folder, (), name.key))
        if not found:
            return name
        host, namespace, model, tag = found[0]
        return ModelName(host=host, namespace=namespace, model=model, tag=tag, scheme=name.scheme)

    def _matching(
        self, folder: Path, above: tuple[str, ...], key: tuple[str, ...]
    ) -> Iterator[tuple[str, ...]]:
        for entry in _listed(folder):
            if entry.name.lower() != key[len(above)]:
                continue
            parts = (*above, entry.name)
            if len(parts) < _DEPTH and entry.is_dir(follow_symlinks=False):
                yield from self._matching(Path(entry.path), parts, key)
            elif len(parts) == _DEPTH and entry.is_file(follow_symlinks=False):
                yield parts

    def exists(self, name: ModelName) -> bool:
        """Return whether exactly this spelling is stored."""
        try:
            if self._linked_folder(name) is not None:
                return False
            return stat.S_ISREG(self.path(name).lstat().st_mode)
        except OSError:
            return False  # Absent, or unreachable: reading it says which.

    def read(self, name: ModelName) -> StoredManifest:
        """Return the manifest of exactly this spelling.

        Raises ModelNotFound, ModelCorrupt, StorageFailed.
        """
        if _is_too_long(name):
            raise ModelNotFound(f"model '{name}' not found")
        try:
            linked = self._linked_folder(name)
            if linked is not None:
                raise ModelCorrupt(f"model {name}: {linked} is a symbolic link")
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
            fd = os.open(self.path(name), flags)
        except (FileNotFoundError, NotADirectoryError):
            raise ModelNotFound(f"model '{name}' not found") from None
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise ModelCorrupt(f"model {name}: its manifest is a symbolic link") from None
            raise StorageFailed(f"cannot read the manifest of {name}: {exc.strerror}") from exc
        with os.fdopen(fd, "rb") as file, translated(f"read the manifest of {name}"):
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelNotFound(f"model '{name}' not found")
            data = file.read(MANIFEST_BYTES_MAX + 1)
        try:
            manifest = parse_manifest(data)
        except ModelCorrupt as exc:
            raise ModelCorrupt(f"model {name}: {exc}; pull it again or delete it") from exc
        return StoredManifest(
            name=name,
            manifest=manifest,
            digest=sha256(data).hexdigest(),
            modified_at=_calendar(status.st_mtime_ns),
            data=data,
            stamp=stamp_of(status),
        )

    def replace(self, name: ModelName, data: bytes) -> None:
        """Make *data* the manifest of *name*, whole or not at all.

        Raises StorageFailed, and InvalidName for one that no file can have.
        """
        if _is_too_long(name):
            raise InvalidName(
                f"invalid model name: the host may have at most {FILE_NAME_BYTES_MAX} characters"
            )
        path = self.path(name)
        existed = self.exists(name)
        with translated(f"write the manifest of {name}"):
            linked = self._linked_folder(name)
            if linked is not None:
                raise StorageFailed(f"cannot write the manifest of {name}: {linked} is a link")
            try:
                self._files.make_folder(path.parent)
                self._write(path, data, existed=existed)
            except BaseException:
                self.remove_empty_folders(path.parent)
                raise

    def _write(self, path: Path, data: bytes, *, existed: bool) -> None:
        temporary = temporary_in(path.parent)
        try:
            fd = self._files.create(temporary)
            try:
                self._files.write(fd, data)
                self._files.sync(fd)
            finally:
                os.close(fd)
            self._files.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        try:
            self._files.sync_folder(path.parent)
        except OSError:
            # The caller is told that it failed; a model that was not there must not be there.
            if not existed:
                path.unlink(missing_ok=True)
            raise

    def remove(self, name: ModelName) -> None:
        """Remove the manifest and the folders it leaves empty. Raises StorageFailed."""
        path = self.path(name)
        with translated(f"remove the manifest of {name}"):
            self._files.remove(path)
            self._files.sync_folder(path.parent)
        self.remove_empty_folders(path.parent)

    def remove_empty_folders(self, folder: Path) -> None:
        """Remove *folder* and those above it, as long as they are empty and below ours."""
        while folder != self.folder and self.folder in folder.parents:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return  # Not empty, or not ours to remove: it does no harm.
            folder = folder.parent

    def stale_temporaries(self, before_s: float) -> Iterator[Path]:
        """Yield our own temporary files last changed before *before_s*."""
        for path in self.folder.glob(f"*/*/*/{TEMPORARY_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_ctime < before_s:
                    yield path

    def _linked_folder(self, name: ModelName) -> Path | None:
        """Return the first folder on the way to the manifest that is a symbolic link."""
        folder = self.folder
        for part in name.path.parts[:-1]:
            folder /= part
            try:
                if stat.S_ISLNK(folder.lstat().st_mode):
                    return folder
            except FileNotFoundError:
                return None
        return None


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of *folder* in order, without hidden ones; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise StorageFailed(f"cannot list {folder}: {exc.strerror}") from exc


def _is_too_long(name: ModelName) -> bool:
    return any(len(part) > FILE_NAME_BYTES_MAX for part in name.path.parts)


def _calendar(nanoseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)  # A clock gone mad must not hide the model.
