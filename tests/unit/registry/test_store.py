from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollamad.errors import (
    BlobNotFound,
    InvalidDigest,
    InvalidName,
    ModelCorrupt,
    ModelNotFound,
    OllamadError,
    StorageFailed,
)
from ollamad.names import ModelName
from ollamad.registry.digests import Digest
from ollamad.registry.files import TEMPORARY_PREFIX
from ollamad.registry.manifest import CONFIG_TYPE, MODEL_TYPE, Layer, Manifest
from ollamad.registry.store import Store
from tests.fakes.files import FaultyFiles

LLAMA = ModelName(model="llama3", tag="8b")
OTHER = ModelName(namespace="me", model="Mine", tag="v1")
LONG_AGO = timedelta(hours=2)


def _layer(store: Store, data: bytes, media_type: str = MODEL_TYPE) -> Layer:
    digest, size = store.put_bytes(data)
    return Layer(media_type=media_type, digest=digest, size=size)


def _model(store: Store, name: ModelName, *contents: bytes) -> Manifest:
    manifest = Manifest(
        config=_layer(store, b"config of " + name.full.encode(), CONFIG_TYPE),
        layers=tuple(_layer(store, data) for data in contents),
    )
    store.write(name, manifest)
    return manifest


def _files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def _later() -> datetime:
    return datetime.now(UTC) + LONG_AGO


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    manifest = _model(store, LLAMA, b"weights")

    stored = store.read(LLAMA)

    assert stored.manifest == manifest
    path = tmp_path / "models/manifests/registry.ollama.ai/library/llama3/8b"
    assert stored.data == path.read_bytes()
    assert stored.digest == Digest.of(stored.data).hex
    assert stored.size_bytes == manifest.size_bytes
    assert abs(stored.modified_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert store.names() == [LLAMA]
    assert store.problems() == []


def test_modes_are_open_for_reading_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        store = Store(tmp_path / "models")
        _model(store, LLAMA, b"weights")
    finally:
        os.umask(before)

    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "models").rglob("*") if p.is_dir()}
    assert modes == {0o755}
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "models").rglob("*") if p.is_file()}
    assert modes == {0o644}


def test_a_folder_made_by_ollama_is_used_as_it_is(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    config, weights = b'{"model_format":"gguf"}', b"weights of another program"
    for data in (config, weights):
        (blobs / Digest.of(data).file_name).write_bytes(data)
    (blobs / f"{Digest.of(b'x').file_name}-partial-0").write_bytes(b"{}")
    folder = tmp_path / "manifests/registry.ollama.ai/library/qwen"
    folder.mkdir(parents=True)
    (folder / "0.5b").write_text(
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        '"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
        f'"digest":"{Digest.of(config)}","size":{len(config)}}},'
        '"layers":[{"mediaType":"application/vnd.ollama.image.model",'
        f'"digest":"{Digest.of(weights)}","size":{len(weights)}}}]}}'
    )
    (tmp_path / "manifests/.DS_Store").write_bytes(b"")
    store = Store(tmp_path)

    name = ModelName(model="qwen", tag="0.5b")
    assert store.names() == [name]
    assert store.read(name).manifest.layers[0].digest == Digest.of(weights)
    assert store.read_blob(Digest.of(weights), 100) == weights
    assert store.problems() == []
    assert store.sweep(_later()).blobs == ()
    assert (blobs / f"{Digest.of(b'x').file_name}-partial-0").exists()


def test_names_are_found_whatever_their_case_and_all_parts_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _model(store, OTHER, b"weights")
    _model(store, LLAMA, b"weights")

    assert store.resolve(ModelName(namespace="ME", model="mine", tag="V1")) == OTHER
    mixed = ModelName(namespace="ME", model="llama3", tag="8b")
    assert store.resolve(mixed) == mixed


def test_of_two_spellings_the_exact_one_wins_and_else_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for model in ("Mix", "mix"):
        _model(store, ModelName(model=model), b"weights")

    assert store.resolve(ModelName(model="mix")).model == "mix"
    assert store.resolve(ModelName(model="Mix")).model == "Mix"
    assert store.resolve(ModelName(model="MIX")).model == "Mix"


def test_an_absent_model_is_not_found_by_anything(tmp_path: Path) -> None:
    store = Store(tmp_path)

    assert store.names() == []
    assert store.resolve(LLAMA) == LLAMA
    assert not store.has(LLAMA)
    with pytest.raises(ModelNotFound, match=r"^model 'llama3:8b' not found$"):
        store.read(LLAMA)
    with pytest.raises(ModelNotFound, match=r"^model 'llama3:8b' not found$"):
        store.delete(LLAMA)
    with pytest.raises(ModelNotFound, match=r'^model "llama3:8b" not found$'):
        store.copy(LLAMA, OTHER)


def test_a_manifest_whose_blobs_are_missing_is_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    absent = Layer(media_type=MODEL_TYPE, digest=Digest.of(b"absent"), size=6)

    with pytest.raises(BlobNotFound):
        store.write(LLAMA, Manifest(config=_layer(store, b"config"), layers=(absent,)))

    assert store.names() == []


def test_a_registrys_manifest_keeps_its_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    layer = _layer(store, b"config")
    data = f'{{ "config" : {{"digest":"{layer.digest}","size":6}}, "new": 1 }}'.encode()

    store.write_bytes(LLAMA, data)

    assert store.read(LLAMA).data == data


def test_a_name_too_long_for_a_file_is_refused_when_written_and_absent_when_read(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    name = ModelName(host="h" * 300, model="m")

    with pytest.raises(InvalidName, match="at most 255"):
        store.write(name, Manifest(config=_layer(store, b"config"), layers=()))
    with pytest.raises(ModelNotFound):
        store.read(name)
    assert store.resolve(name) == name


def test_a_copy_shares_everything_and_replaces_what_was_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _model(store, LLAMA, b"weights")
    _model(store, OTHER, b"other weights")

    store.copy(LLAMA, ModelName(namespace="me", model="mine", tag="v1"))
    store.copy(LLAMA, LLAMA)

    assert store.names() == [LLAMA, OTHER]
    assert store.read(OTHER).data == store.read(LLAMA).data


def test_a_delete_keeps_blobs_that_another_model_needs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ours = _model(store, LLAMA, b"shared", b"alone")
    _model(store, OTHER, b"shared")

    store.delete(ModelName(model="LLAMA3", tag="8B"))

    assert store.names() == [OTHER]
    assert store.has_blob(Digest.of(b"shared"))
    assert not store.has_blob(Digest.of(b"alone"))
    assert not store.has_blob(ours.config.digest)
    assert not (tmp_path / "manifests/registry.ollama.ai/library").exists()


def test_the_last_delete_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _model(store, LLAMA, b"weights")

    store.delete(LLAMA)

    assert _files(tmp_path) == []


def test_a_delete_keeps_all_blobs_while_any_manifest_is_unreadable(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _model(store, LLAMA, b"weights")
    _model(store, OTHER, b"weights of other")
    store.manifest_path(OTHER).write_bytes(b"{")

    store.delete(LLAMA)

    assert store.has_blob(Digest.of(b"weights"))
    assert store.sweep(_later()).skipped
    assert store.has_blob(Digest.of(b"weights"))
    assert store.problems() == [store.sweep(_later()).skipped]


def test_a_model_with_an_unreadable_manifest_can_be_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _model(store, LLAMA, b"weights")
    store.manifest_path(LLAMA).write_bytes(b"{")

    with pytest.raises(ModelCorrupt, match=r"model llama3:8b: the manifest .* delete it"):
        store.read(LLAMA)
    store.delete(LLAMA)

    assert store.names() == []
    assert store.sweep(_later()).skipped == ""
    assert _files(tmp_path) == []


def test_a_delete_leaves_a_blob_that_was_just_uploaded_again(tmp_path: Path) -> None:
    """Else a create that found the blob present would fail, or worse, dangle."""
    store = Store(tmp_path)
    manifest = _model(store, LLAMA, b"weights")
    store.touch_blob(Digest.of(b"weights"))

    store.delete(LLAMA)

    assert store.has_blob(Digest.of(b"weights"))
    assert not store.has_blob(manifest.config.digest)


def test_a_sweep_keeps_young_blobs_and_removes_old_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _model(store, LLAMA, b"weights")
    Store(tmp_path).put_bytes(b"orphan")
    temporary = tmp_path / "blobs" / f"{TEMPORARY_PREFIX}1-a"
    temporary.write_bytes(b"half")
    other = tmp_path / "manifests/h/n/m" / f"{TEMPORARY_PREFIX}1-b"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"half")

    young = store.sweep(datetime.now(UTC))
    old = store.sweep(_later())

    assert young.blobs == ()
    assert young.temporaries == ()
    assert old.blobs == (Digest.of(b"orphan"),)
    assert set(old.temporaries) == {temporary, other}
    assert old.freed_bytes == 6
    assert not temporary.exists()
    assert not other.parent.exists()
    assert store.has_blob(Digest.of(b"weights"))


def test_a_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_blob_writer(None) as writer:
        writer.write(b"slow upload")
        assert store.sweep(_later()).temporaries == ()
        digest, size = writer.commit()

    assert (digest, size) == (Digest.of(b"slow upload"), 11)
    assert store.has_blob(digest)
    assert store.sweep(_later()).blobs == ()


def test_a_link_below_the_manifests_is_not_followed(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    _model(store, LLAMA, b"weights")
    outside = tmp_path / "outside"
    (outside / "m").mkdir(parents=True)
    (outside / "m/latest").write_bytes(store.read(LLAMA).data)
    host = tmp_path / "models/manifests/registry.ollama.ai"
    (host / "linked").symlink_to(outside)
    (host / "library/llama3/tag").symlink_to(host / "library/llama3/8b")
    name = ModelName(namespace="linked", model="m")

    assert store.names() == [LLAMA]
    assert len([text for text in store.problems() if "symbolic link" in text]) == 2
    assert store.resolve(name) == name
    assert not store.has(name)
    with pytest.raises(ModelCorrupt, match="symbolic link"):
        store.read(name)
    with pytest.raises(ModelCorrupt, match="symbolic link"):
        store.read(ModelName(model="llama3", tag="tag"))
    with pytest.raises(StorageFailed, match="link"):
        store.write(name, store.read(LLAMA).manifest)
    store.delete(LLAMA)
    assert store.has_blob(Digest.of(b"weights"))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(
        st.sampled_from(["..", "../", "/", ".", "a", ":", "\0", "%2e", "\\", "~"]), max_size=9
    ).map("".join)
)
def test_no_name_leads_out_of_the_store(tmp_path: Path, text: str) -> None:
    root = tmp_path / "models"
    store = Store(root)
    try:
        name = ModelName.parse(text)
        _model(store, name, b"weights")
    except OllamadError:
        pass
    else:
        assert store.has(name)
    outside = [p for p in tmp_path.iterdir() if p != root]
    assert outside == []
    assert all(p.resolve().is_relative_to(root) for p in root.rglob("*"))


def _writes(store: Store) -> None:
    with store.open_blob_writer(Digest.of(b"weights")) as writer:
        writer.write(b"wei")
        writer.write(b"ghts")
        digest, size = writer.commit()
    config = _layer(store, b"config", CONFIG_TYPE)
    layers = (Layer(media_type=MODEL_TYPE, digest=digest, size=size),)
    store.write(LLAMA, Manifest(config=config, layers=layers))


@pytest.mark.parametrize("lasting", [False, True])
def test_whichever_change_fails_no_half_file_and_no_manifest_stays(
    tmp_path: Path, lasting: bool
) -> None:
    counted = FaultyFiles()
    _writes(Store(tmp_path / "counted", files=counted))
    n_changes = len(counted.done)
    assert n_changes > 15

    for fails_at in range(n_changes):
        root = tmp_path / str(fails_at)
        with pytest.raises(StorageFailed, match="disk is full"):
            _writes(Store(root, files=FaultyFiles(fails_at=fails_at, lasting=lasting)))

        whole = {f"blobs/{Digest.of(data).file_name}" for data in (b"weights", b"config")}
        assert set(_files(root)) <= whole if root.exists() else True
        for path in root.glob("blobs/*"):
            assert Digest.of(path.read_bytes()).file_name == path.name
        _writes(Store(root))
        assert Store(root).names() == [LLAMA]


def test_a_failed_rewrite_leaves_a_whole_manifest(tmp_path: Path) -> None:
    counted = FaultyFiles()
    store = Store(tmp_path, files=counted)
    before = _model(store, LLAMA, b"old")
    after = Manifest(config=before.config, layers=(_layer(store, b"new"),))
    counted.done.clear()
    store.write(LLAMA, after)
    for fails_at in range(len(counted.done)):
        store.write(LLAMA, before)
        with pytest.raises(StorageFailed):
            Store(tmp_path, files=FaultyFiles(fails_at=fails_at)).write(LLAMA, after)
        assert store.read(LLAMA).manifest in (before, after)
        assert not [name for name in _files(tmp_path) if TEMPORARY_PREFIX in name]


def test_threads_that_write_and_delete_never_leave_a_dangling_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        name = ModelName(model=f"m{number}")
        try:
            for turn in range(15):
                _model(store, name, b"shared", b"%d of %d" % (turn, number))
                if turn % 2:
                    store.delete(name)
        except BaseException as exc:  # noqa: BLE001 - told by the main thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # A delete may take the shared blob between another thread's upload and its manifest only if
    # that upload is no longer fresh; the write then says so, and nothing dangles.
    assert [exc for exc in failures if not isinstance(exc, BlobNotFound)] == []
    for name in store.names():
        assert all(store.has_blob(digest) for digest in store.read(name).manifest.digests)


def test_an_upload_of_something_else_is_refused_and_not_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    expected, got = Digest.of(b"expected"), Digest.of(b"other")
    with store.open_blob_writer(expected) as writer:
        writer.write(b"other")
        words = f'^digest mismatch, expected "{expected}", got "{got}"$'
        with pytest.raises(InvalidDigest, match=words):
            writer.commit()

    assert _files(tmp_path) == []
