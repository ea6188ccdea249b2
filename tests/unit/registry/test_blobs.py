from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ollamad.errors import BlobNotFound, ModelCorrupt, ProtocolBroken, StorageFailed
from ollamad.registry.digests import Digest
from ollamad.registry.store import Store
from tests.fakes.files import CloningFiles, FaultyFiles

DATA = bytes(range(256)) * 8000
DIGEST = Digest.of(DATA)


def _source(folder: Path) -> Path:
    path = folder / "source.gguf"
    path.write_bytes(DATA)
    path.chmod(0o640)
    os.utime(path, ns=(1, 10**18))
    return path


def _unchanged(path: Path) -> bool:
    status = path.stat()
    return (
        path.read_bytes() == DATA
        and status.st_mode & 0o777 == 0o640
        and status.st_mtime_ns == 10**18
    )


def test_a_writer_that_is_left_early_stores_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_blob_writer(None) as writer:
        writer.write(DATA)

    assert list((tmp_path / "blobs").iterdir()) == []
    with pytest.raises(ProtocolBroken):
        writer.write(b"more")


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.put_bytes(DATA) == store.put_bytes(DATA) == (DIGEST, len(DATA))

    assert [path.name for path in (tmp_path / "blobs").iterdir()] == [DIGEST.file_name]
    assert store.blob_bytes(DIGEST) == len(DATA)


def test_a_blob_cut_short_by_an_accident_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_bytes(DATA)
    os.truncate(store.blob_path(DIGEST), 5)

    store.put_bytes(DATA)

    assert store.blob_path(DIGEST).read_bytes() == DATA


def test_small_reads_are_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_bytes(DATA)

    assert store.read_blob(DIGEST, len(DATA)) == DATA
    with pytest.raises(ModelCorrupt, match="at most 10"):
        store.read_blob(DIGEST, 10)
    with pytest.raises(BlobNotFound, match=f'^blob "{Digest.of(b"absent")}" not found$'):
        store.read_blob(Digest.of(b"absent"), 10)


def test_a_touch_of_an_absent_blob_says_so(tmp_path: Path) -> None:
    with pytest.raises(BlobNotFound):
        Store(tmp_path).touch_blob(DIGEST)


def test_a_file_is_adopted_by_a_second_name_where_allowed(tmp_path: Path) -> None:
    source, store = _source(tmp_path), Store(tmp_path / "models")

    assert store.adopt_file(source, may_link=True) == (DIGEST, len(DATA))
    store.touch_blob(DIGEST)
    assert store.adopt_file(source, may_link=True) == (DIGEST, len(DATA))

    assert store.blob_path(DIGEST).samefile(source)
    assert _unchanged(source)
    assert len(list((tmp_path / "models/blobs").iterdir())) == 1


def test_a_linked_file_is_adopted_itself_and_not_its_link(tmp_path: Path) -> None:
    source, store = _source(tmp_path), Store(tmp_path / "models")
    (tmp_path / "link").symlink_to(source)

    store.adopt_file(tmp_path / "link", may_link=True)

    assert not store.blob_path(DIGEST).is_symlink()
    assert store.blob_path(DIGEST).samefile(source)


def test_a_file_is_copied_unless_a_link_is_allowed(tmp_path: Path) -> None:
    source, store = _source(tmp_path), Store(tmp_path / "models")

    assert store.adopt_file(source) == (DIGEST, len(DATA))

    assert not store.blob_path(DIGEST).samefile(source)
    assert store.blob_path(DIGEST).read_bytes() == DATA
    assert _unchanged(source)


def test_a_file_on_another_disk_is_copied(tmp_path: Path) -> None:
    class OtherDisk(FaultyFiles):
        def link(self, old: Path, new: Path) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    source, store = _source(tmp_path), Store(tmp_path / "models", files=OtherDisk())

    store.adopt_file(source, may_link=True)

    assert not store.blob_path(DIGEST).samefile(source)
    assert store.blob_path(DIGEST).read_bytes() == DATA


def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path) -> None:
    files = CloningFiles()
    source, store = _source(tmp_path), Store(tmp_path / "models", files=files)

    assert store.adopt_file(source) == (DIGEST, len(DATA))

    assert files.cloned == 1
    assert store.blob_path(DIGEST).read_bytes() == DATA


def test_a_failed_adoption_leaves_nothing(tmp_path: Path) -> None:
    source = _source(tmp_path)
    for may_link in (False, True):
        counted = FaultyFiles()
        Store(tmp_path / f"counted{may_link}", files=counted).adopt_file(source, may_link=may_link)
        for fails_at in range(len(counted.done)):
            store = Store(tmp_path / f"{may_link}{fails_at}", files=FaultyFiles(fails_at=fails_at))
            with pytest.raises(StorageFailed):
                store.adopt_file(source, may_link=may_link)
            left = {path.name for path in store.root.glob("blobs/*")}
            assert left <= {DIGEST.file_name}
    assert _unchanged(source)


def test_what_is_no_file_cannot_be_adopted(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(StorageFailed, match="cannot read"):
            store.adopt_file(path)


def test_a_refusal_of_the_disk_says_what_may_help(tmp_path: Path) -> None:
    for code, words in ((errno.ENOSPC, "free some space"), (errno.EROFS, "read-only")):
        files = FaultyFiles(fails_at=0, code=code)
        with pytest.raises(StorageFailed, match=words):
            Store(tmp_path, files=files).put_bytes(DATA)
