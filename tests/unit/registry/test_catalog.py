from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ollamad.errors import CloudDisabled, InvalidName, ModelCorrupt, ModelNotFound, NotGguf
from ollamad.modelinfo import StoredMessage, StoredModel
from ollamad.names import ModelName
from ollamad.registry import catalog as module
from ollamad.registry.catalog import Catalog
from ollamad.registry.create import CreateSpec
from ollamad.registry.digests import Digest
from ollamad.registry.manifest import (
    CONFIG_TYPE,
    LICENSE_TYPE,
    MESSAGES_TYPE,
    MODEL_TYPE,
    OLD_TEMPLATE_TYPE,
    PARAMETERS_TYPE,
    PROJECTOR_TYPE,
    SYSTEM_TYPE,
    TENSOR_TYPE,
    Layer,
    Manifest,
)
from ollamad.registry.store import Store
from tests.builders import a_gguf, a_gguf_blob, created


def _put(store: Store, media_type: str, data: bytes | str | object, from_: str = "") -> Layer:
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data)).encode()
    digest, size = store.put_bytes(data)
    return Layer(media_type=media_type, digest=digest, size=size, from_=from_)


def _write(
    store: Store, name: str, *layers: Layer, config: dict[str, Any] | None = None
) -> ModelName:
    parsed = ModelName.parse(name)
    store.write(
        parsed, Manifest(config=_put(store, CONFIG_TYPE, config or {}), layers=tuple(layers))
    )
    return parsed


def _weights(store: Store, folder: Path, **fields: Any) -> Layer:
    path = a_gguf(folder / "w.gguf", **fields)
    return _put(store, MODEL_TYPE, path.read_bytes(), from_="base:latest")


def test_a_model_of_ollama_is_described_completely(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    weights = _weights(store, tmp_path)
    name = _write(
        store,
        "Qwen:0.5b",
        weights,
        _put(store, OLD_TEMPLATE_TYPE, "{{ .Prompt }}{{ .Suffix }}"),
        _put(store, SYSTEM_TYPE, "Be kind."),
        _put(store, PARAMETERS_TYPE, {"stop": ["a", "b"], "temperature": 1}),
        _put(store, MESSAGES_TYPE, [{"role": "user", "content": "hi", "images": None}]),
        _put(store, LICENSE_TYPE, "first"),
        _put(store, LICENSE_TYPE, "second"),
        config={
            "model_format": "gguf",
            "model_family": "qwen2",
            "model_families": ["qwen2"],
            "model_type": "494.03M",
            "file_type": "Q4_0",
            "requires": "0.1.0",
        },
    )

    model = Catalog(store).find("qwen:0.5B")

    assert model.name == name
    assert model.digest == store.read(name).digest
    assert model.size_bytes == store.read(name).size_bytes
    assert model.modified_at == store.read(name).modified_at
    details = model.details
    assert (details.parent_model, details.format, details.family) == (
        "base:latest",
        "gguf",
        "qwen2",
    )
    assert (details.families, details.parameter_size) == (("qwen2",), "494.03M")
    assert details.quantization_level == "Q4_0"
    assert model.weights_id == str(weights.digest)
    assert model.weights_path == store.blob_path(weights.digest)
    assert model.facts.architecture == "llama"
    assert model.template == "{{ .Prompt }}{{ .Suffix }}"
    assert model.system == "Be kind."
    assert model.licenses == ("first", "second")
    assert model.parameters == {"stop": ["a", "b"], "temperature": 1}
    assert model.messages == (StoredMessage(role="user", content="hi"),)
    assert model.requires == "0.1.0"
    assert model.capabilities == ("completion", "insert")


def test_what_the_config_leaves_out_comes_from_the_weights(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    _write(store, "bare", _weights(store, tmp_path, file_type=15))

    model = Catalog(store).find("bare")

    assert model.details.family == "llama"
    assert model.details.families == ("llama",)
    assert model.details.parameter_size == "224"
    assert model.details.quantization_level == "Q4_K_M"
    assert model.template is None


def test_of_several_weights_the_last_are_used_and_projectors_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    first, last = _weights(store, tmp_path), _weights(store, tmp_path, n_layer=3)
    clip = a_gguf(tmp_path / "p", architecture="clip", kind="mmproj", n_layer=0).read_bytes()
    projector = _put(store, PROJECTOR_TYPE, clip)
    _write(store, "two", first, last, projector)

    model = Catalog(store).find("two")

    assert len(model.facts.layers) == 3
    assert model.projector_paths == (store.blob_path(projector.digest),)
    assert "vision" in model.capabilities


def test_a_name_is_invalid_or_not_found_as_it_was_asked(tmp_path: Path) -> None:
    catalog = Catalog(Store(tmp_path))

    with pytest.raises(InvalidName):
        catalog.find("../x")
    with pytest.raises(ModelNotFound, match=r"^model 'Foo' not found$"):
        catalog.find("Foo")
    with pytest.raises(ModelNotFound, match=r"^model 'foo:latest' not found$"):
        catalog.find(ModelName.parse("foo"))


def test_a_model_is_remembered_until_its_manifest_changes(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    weights = _weights(store, tmp_path)
    name = _write(store, "m", weights)
    catalog = Catalog(store)
    first = catalog.find("m")

    assert catalog.find("m") is first
    _write(store, "m", weights, _put(store, SYSTEM_TYPE, "new"))
    assert catalog.find("m").system == "new"
    store.delete(name)
    with pytest.raises(ModelNotFound):
        catalog.find("m")


def test_what_is_remembered_is_told_without_reading_and_only_while_it_is_true(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "models")
    weights = _weights(store, tmp_path)
    name = _write(store, "m", weights)
    catalog = Catalog(store)

    assert catalog.remembered("m") is None
    model = catalog.find("m")
    assert catalog.remembered("m") is model
    _write(store, "m", weights, _put(store, SYSTEM_TYPE, "new"))
    assert catalog.remembered("m") is None
    catalog.find("m")
    store.delete(name)
    assert catalog.remembered("m") is None


def test_only_so_many_models_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MODELS_REMEMBERED_MAX", 2)
    store = Store(tmp_path / "models")
    weights = _weights(store, tmp_path)
    for name in ("a", "b", "c"):
        _write(store, name, weights)
    catalog = Catalog(store)
    first = catalog.find("a")
    catalog.find("b")
    assert catalog.find("a") is first
    second = catalog.find("b")
    catalog.find("a")
    catalog.find("c")

    assert catalog.find("a") is first
    assert catalog.find("b") is not second


def test_the_list_has_the_newest_first_and_tells_of_the_unreadable_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "models")
    weights = _weights(store, tmp_path)
    for number, name in enumerate(("old", "new", "middle")):
        path = store.manifest_path(_write(store, name, weights))
        os.utime(path, (number, (0, 2, 1)[number]))
    _write(store, "broken", _put(store, MODEL_TYPE, b"no weights"))
    store.manifest_path(_write(store, "torn", weights)).write_bytes(b"{")
    catalog = Catalog(store)

    with caplog.at_level(logging.WARNING, logger="ollamad"):
        lists = [catalog.list(), catalog.list()]

    assert [[model.name.model for model in models] for models in lists] == [
        ["new", "middle", "old"]
    ] * 2
    told = [r.getMessage() for r in caplog.records if r.name.startswith("ollamad")]
    assert len(told) == 2
    assert all("leaving" in text for text in told)


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        (PARAMETERS_TYPE, b"[1]"),
        (PARAMETERS_TYPE, b"{"),
        (MESSAGES_TYPE, b'{"role":"user"}'),
        (MESSAGES_TYPE, b'[{"role":1}]'),
        (PROJECTOR_TYPE, b"no projector"),
    ],
)
def test_a_layer_that_cannot_be_read_makes_the_model_corrupt(
    tmp_path: Path, media_type: str, data: bytes
) -> None:
    store = Store(tmp_path / "models")
    _write(store, "m", _weights(store, tmp_path), _put(store, media_type, data))

    with pytest.raises(ModelCorrupt, match=r"^model m:latest: "):
        Catalog(store).find("m")


def test_missing_and_cut_weights_make_the_model_corrupt(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    weights = _weights(store, tmp_path)
    _write(store, "m", weights)
    os.truncate(store.blob_path(weights.digest), 100)
    with pytest.raises(ModelCorrupt, match=r"has 100 bytes but should have \d+; pull or create"):
        Catalog(store).find("m")
    store.blob_path(weights.digest).unlink()
    with pytest.raises(ModelCorrupt, match=r"not found; pull or create it again"):
        Catalog(store).find("m")


@pytest.mark.parametrize(
    ("config", "media_type", "words"),
    [
        ({}, TENSOR_TYPE, "safetensors"),
        ({}, "", "it has no weights"),
    ],
)
def test_a_model_without_weights_says_what_it_is(
    tmp_path: Path, config: dict[str, Any], media_type: str, words: str
) -> None:
    store = Store(tmp_path)
    layers = [_put(store, media_type, b"tensor")] if media_type else []
    _write(store, "m", *layers, config=config)

    with pytest.raises(ModelCorrupt, match=words):
        Catalog(store).find("m")


def test_a_model_that_only_points_elsewhere_is_refused_like_one_of_the_cloud(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    _write(store, "m", config={"remote_host": "https://host:443"})

    with pytest.raises(
        CloudDisabled, match="ollama cloud is disabled: remote model is unavailable"
    ):
        Catalog(store).find("m")


def test_what_is_wrong_with_a_file_is_remembered_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    digest, _ = store.put_bytes(b"no weights")
    catalog = Catalog(store)
    with pytest.raises(NotGguf):
        catalog.facts(digest)

    monkeypatch.delattr(module, "read_header")
    with pytest.raises(NotGguf):
        catalog.facts(digest)


def test_many_threads_find_the_same_models(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    digest = a_gguf_blob(store, tmp_path)
    for number in range(3):
        name = ModelName(model=f"m{number}")
        created(store, CreateSpec(name=name, files={"m.gguf": str(digest)}))
    catalog, found = Catalog(store), list[list[StoredModel]]()

    def work() -> None:
        found.append([catalog.find(f"m{number}") for number in (0, 1, 2) * 5])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert all(models == found[0] for models in found)
    assert isinstance(digest, Digest)
