"""`Store`: models on disk, in Ollama's own layout, so that its folder can be used as it is.

Puts blobs and manifests together and keeps the one promise that needs both: a model exists when
its manifest does, and then its blobs exist too. Blobs are written first, the manifest last;
removal goes the other way. Methods are synchronous and may be called from several threads.
Two daemons on one store are not coordinated, beyond the hour that unreferenced blobs are kept.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from ollamad.errors import BlobNotFound, ModelCorrupt, ModelNotFound, StorageFailed
from ollamad.names import ModelName
from ollamad.registry.blobs import GRACE_S, Blobs, BlobWriter
from ollamad.registry.digests import Digest
from ollamad.registry.files import Files
from ollamad.registry.manifest import Manifest, encode_manifest, parse_manifest
from ollamad.registry.manifestfiles import ManifestFiles, StoredManifest
from ollamad.registry.sweep import Sweepings, SweepReport, find_sweepings

log = logging.getLogger(__name__)

PROBLEMS_TOLD_MAX: Final = 256
"""Misplaced files logged by one process; `problems` still tells all."""


class Store:
    """The models below *root*."""

    def __init__(self, root: Path, *, files: Files | None = None) -> None:
        self.root = root
        changes = files or Files()
        # Held while manifests change and while blobs are removed, so that a blob cannot go
        # between the moment a new manifest was checked and the moment it is there.
        self._lock = threading.RLock()
        self._blobs = Blobs(root / "blobs", changes, self._lock)
        self._manifests = ManifestFiles(root / "manifests", changes)
        self._told: set[Path] = set()

    # Models

    def names(self) -> list[ModelName]:
        """Return every stored name, sorted. Files in the wrong place are logged once and skipped.

        Raises StorageFailed.
        """
        names: list[ModelName] = []
        for path, found in self._manifests.entries():
            if isinstance(found, ModelName):
                names.append(found)
            elif path not in self._told and len(self._told) < PROBLEMS_TOLD_MAX:
                self._told.add(path)
                log.warning("skipping %s: it %s", path, found)
        return names

    def problems(self) -> list[str]:
        """Return a sentence for each manifest that cannot be used."""
        sentences: list[str] = []
        for path, found in self._manifests.entries():
            if isinstance(found, str):
                sentences.append(f"{path} {found}")
                continue
            try:
                self._manifests.read(found)
            except (ModelCorrupt, StorageFailed) as exc:
                sentences.append(exc.message)
            except ModelNotFound:
                continue  # Deleted since it was listed.
        return sentences

    def resolve(self, name: ModelName) -> ModelName:
        """Return the stored spelling of *name*, ignoring case, or *name* if it is not stored."""
        return self._manifests.resolve(name)

    def has(self, name: ModelName) -> bool:
        """Return whether the model is stored, in exactly this spelling."""
        return self._manifests.exists(name)

    def manifest_path(self, name: ModelName) -> Path:
        """Return where the manifest of exactly this spelling lies, or would lie."""
        return self._manifests.path(name)

    def read(self, name: ModelName) -> StoredManifest:
        """Return the manifest of exactly this spelling.

        Raises ModelNotFound, ModelCorrupt, StorageFailed.
        """
        return self._manifests.read(name)

    def write(self, name: ModelName, manifest: Manifest) -> None:
        """Make *manifest* what *name* stands for.

        Raises BlobNotFound if one of its blobs is missing, and StorageFailed.
        """
        self.write_bytes(name, encode_manifest(manifest))

    def write_bytes(self, name: ModelName, data: bytes) -> None:
        """Make the manifest in *data* what *name* stands for, byte for byte.

        A registry's manifest must keep its bytes, and so its digest. Raises also ModelCorrupt.
        """
        manifest = parse_manifest(data)
        with self._lock:
            for digest in sorted(manifest.digests):
                if not self._blobs.has(digest):
                    raise BlobNotFound(f'blob "{digest}" not found')
            self._manifests.replace(name, data)
            self._blobs.settle(manifest.digests)

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give *source* a second name, in place of what has it; onto itself is nothing to do.

        Raises ModelNotFound, ModelCorrupt, StorageFailed.
        """
        with self._lock:
            stored, target = self.resolve(source), self.resolve(destination)
            try:
                data = self.read(stored).data
            except ModelNotFound:
                raise ModelNotFound(f'model "{source}" not found') from None
            if stored != target:
                self.write_bytes(target, data)

    def delete(self, name: ModelName) -> None:
        """Remove the model, and those of its blobs that no other model needs.

        A model whose manifest cannot be read is removed too, without its blobs: a sweep finds
        them. Raises ModelNotFound, StorageFailed.
        """
        with self._lock:
            stored = self.resolve(name)
            try:
                digests = self.read(stored).manifest.digests
            except ModelCorrupt as exc:
                log.warning("deleting only the manifest of %s: %s", stored, exc)
                digests = frozenset()
            except ModelNotFound:
                raise ModelNotFound(f"model '{name}' not found") from None
            self._manifests.remove(stored)
            self.drop_unreferenced(digests)

    def drop_unreferenced(self, digests: Iterable[Digest]) -> list[Digest]:
        """Remove those of *digests* that no manifest names and nobody just uploaded.

        Removes nothing while any manifest is unreadable. Returns what was removed.
        Raises StorageFailed.
        """
        candidates = sorted(set(digests))
        if not candidates:
            return []
        with self._lock:
            referenced, problem = self._referenced()
            if problem:
                log.warning("keeping all blobs: %s", problem)
                return []
            return [
                digest
                for digest in candidates
                if digest not in referenced
                and not self._blobs.is_fresh(digest)
                and self._blobs.remove(digest)
            ]

    def _referenced(self) -> tuple[set[Digest], str]:
        """Return the digests of all manifests, and what keeps them from being all."""
        referenced: set[Digest] = set()
        for path, found in self._manifests.entries():
            if isinstance(found, str):
                return referenced, f"{path} {found}"
            try:
                referenced |= self._manifests.read(found).manifest.digests
            except (ModelCorrupt, StorageFailed) as exc:
                return referenced, exc.message
            except ModelNotFound:
                continue  # Removed by another program since it was listed.
        return referenced, ""

    # Blobs

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is stored."""
        return self._blobs.has(digest)

    def blob_bytes(self, digest: Digest) -> int | None:
        """Return the blob's size, or None if it is not stored."""
        return self._blobs.size(digest)

    def blob_path(self, digest: Digest) -> Path:
        """Return where the blob lies, or would lie."""
        return self._blobs.path(digest)

    def read_blob(self, digest: Digest, bytes_max: int) -> bytes:
        """Return a small blob's content.

        Raises BlobNotFound, StorageFailed, and ModelCorrupt if it is larger than *bytes_max*.
        """
        return self._blobs.read(digest, bytes_max)

    def touch_blob(self, digest: Digest) -> None:
        """Keep the blob for an hour even if the last model that needs it goes.

        For one that an upload or a `create` found present. Raises BlobNotFound.
        """
        self._blobs.touch(digest)

    def open_blob_writer(self, expected: Digest | None) -> BlobWriter:
        """Return a writer for a new blob, to be used as a context manager. Raises StorageFailed."""
        return self._blobs.open_writer(expected)

    def put_bytes(self, data: bytes) -> tuple[Digest, int]:
        """Store a small blob; return its digest and size. Raises StorageFailed."""
        return self._blobs.put_bytes(data)

    def adopt_file(self, path: Path, *, may_link: bool = False) -> tuple[Digest, int]:
        """Store the content of a file that stays where it is; return its digest and size.

        *may_link* allows a hard link: only for a file that nobody will ever edit in place.
        Raises StorageFailed.
        """
        return self._blobs.adopt(path, may_link=may_link)

    def sweep(self, now: datetime) -> SweepReport:
        """Remove blobs that no manifest has named for an hour, and our stale temporary files.

        Removes no blobs while any manifest is unreadable. Raises StorageFailed.
        """
        before_s = now.timestamp() - GRACE_S
        with self._lock:
            referenced, problem = self._referenced()
            found = find_sweepings(self._blobs.folder, referenced, before_s=before_s)
            if problem:
                log.warning("not sweeping blobs: %s. Pull it again or delete it", problem)
                found = Sweepings(temporaries=found.temporaries)
            stale = (*found.temporaries, *self._manifests.stale_temporaries(before_s))
            temporaries = tuple(path for path in stale if not self._blobs.is_unfinished(path))
            for path in temporaries:
                self._blobs.discard(path)
            removed, freed_bytes = [], 0
            for digest in found.blobs:
                size = self._blobs.size(digest) or 0
                if not self._blobs.is_fresh(digest) and self._blobs.remove(digest):
                    removed.append(digest)
                    freed_bytes += size
            for folder in self._manifests.folder.glob("*/*/*/"):
                self._manifests.remove_empty_folders(folder)
        if removed or temporaries:
            log.info(
                "swept %d blobs (%d bytes) and %d temporary files",
                len(removed), freed_bytes, len(temporaries),
            )  # fmt: skip
        return SweepReport(
            blobs=tuple(removed),
            temporaries=temporaries,
            freed_bytes=freed_bytes,
            skipped=problem,
        )
