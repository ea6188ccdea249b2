"""`Catalog`: from a name to a `StoredModel`, everything a request needs to use the model.

Reads manifests, configs, text layers and the headers of weights, and remembers what it read for
as long as the manifest file has not changed. Changes nothing on disk.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from ollamad.convert.gguffacts import facts as facts_of
from ollamad.convert.ggufheader import read_header
from ollamad.errors import (
    BlobNotFound,
    CloudDisabled,
    ModelCorrupt,
    ModelNotFound,
    NotGguf,
    OllamadError,
)
from ollamad.modelinfo import GgufFacts, ModelDetails, StoredMessage, StoredModel, WeightsId
from ollamad.names import ModelName
from ollamad.registry.capabilities import capabilities
from ollamad.registry.digests import Digest
from ollamad.registry.manifest import (
    ADAPTER_TYPE,
    CONFIG_BYTES_MAX,
    LICENSE_TYPE,
    MESSAGES_TYPE,
    MODEL_TYPE,
    OLD_TEMPLATE_TYPE,
    PARAMETERS_TYPE,
    PROJECTOR_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    TENSOR_TYPE,
    TEXT_BYTES_MAX,
    Layer,
    Manifest,
    ModelConfig,
    decode_json,
    parse_config,
)
from ollamad.registry.manifestfiles import Stamp, StoredManifest, stamp_of
from ollamad.registry.store import Store
from ollamad.units import format_count

log = logging.getLogger(__name__)

MODELS_REMEMBERED_MAX: Final = 1024
FACTS_REMEMBERED_MAX: Final = 1024
PROBLEMS_TOLD_MAX: Final = 256

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class _Recent(Generic[_K, _V]):
    """The values used last, up to a number; safe between threads."""

    def __init__(self, n_max: int) -> None:
        self._n_max = n_max
        self._lock = threading.Lock()
        self._values: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: _K, value: _V) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._n_max:
                self._values.popitem(last=False)


class _MessageJson(msgspec.Struct, frozen=True):
    role: str
    content: str = ""


class Catalog:
    """What is stored, described. Methods are synchronous and may be called from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._models: _Recent[ModelName, tuple[Path, Stamp, StoredModel]] = _Recent(
            MODELS_REMEMBERED_MAX
        )
        # Also what is wrong with a file is remembered: a listing must not read it every time.
        self._facts: _Recent[Digest, tuple[tuple[int, int], GgufFacts | str]] = _Recent(
            FACTS_REMEMBERED_MAX
        )
        self._told: _Recent[tuple[ModelName, str], bool] = _Recent(PROBLEMS_TOLD_MAX)

    def remembered(self, wanted: str | ModelName) -> StoredModel | None:
        """Return the model if it is remembered and its manifest is still the same, else `None`.

        Costs one look at the manifest file: quick enough for a task that must not wait.
        Raises InvalidName.
        """
        name = ModelName.parse(wanted) if isinstance(wanted, str) else wanted
        found = self._models.get(name)
        if found is None:
            return None
        path, stamp, model = found
        try:
            same = stamp_of(os.stat(path)) == stamp  # noqa: PTH116 - a hot path, and faster so
        except OSError:
            return None  # Gone or unreachable: reading it tells which.
        return model if same else None

    def find(self, wanted: str | ModelName) -> StoredModel:
        """Return the model of this name, ignoring case.

        Raises InvalidName, ModelNotFound, ModelCorrupt, StorageFailed, CloudDisabled.
        """
        if (model := self.remembered(wanted)) is not None:
            return model
        name = ModelName.parse(wanted) if isinstance(wanted, str) else wanted
        try:
            stored = self._store.read(self._store.resolve(name))
        except ModelNotFound:
            raise ModelNotFound(f"model '{wanted}' not found") from None
        model = self._described(stored)
        self._models.put(name, (self._store.manifest_path(stored.name), stored.stamp, model))
        return model

    def list(self) -> list[StoredModel]:
        """Return all models, the last modified first.

        Those that cannot be read are left out, and logged once. Raises StorageFailed.
        """
        models = []
        for name in self._store.names():
            try:
                models.append(self.find(name))
            except ModelNotFound:
                continue  # Deleted since it was listed.
            except OllamadError as exc:
                if self._told.get((name, exc.message)) is None:
                    self._told.put((name, exc.message), True)
                    log.warning("leaving %s out of the list: %s", name, exc)
        return sorted(models, key=lambda model: model.modified_at, reverse=True)

    def facts(self, digest: Digest) -> GgufFacts:
        """Return what the header of a stored GGUF blob says.

        Raises BlobNotFound, NotGguf, StorageFailed.
        """
        path = self._store.blob_path(digest)
        try:
            status = path.stat()
        except OSError:
            raise BlobNotFound(f'blob "{digest}" not found') from None
        stamp = (status.st_size, status.st_ino)
        remembered = self._facts.get(digest)
        if remembered is None or remembered[0] != stamp:
            remembered = (stamp, _facts_or_reason(path))
            self._facts.put(digest, remembered)
        found = remembered[1]
        if isinstance(found, str):
            raise NotGguf(found)
        return found

    def _described(self, stored: StoredManifest) -> StoredModel:
        """Return everything about the model. Raises ModelCorrupt, StorageFailed."""
        try:
            return self._assembled(stored)
        except ModelCorrupt as exc:
            raise ModelCorrupt(f"model {stored.name}: {exc}") from exc
        except (BlobNotFound, NotGguf) as exc:
            raise ModelCorrupt(f"model {stored.name}: {exc}; pull or create it again") from exc

    def _assembled(self, stored: StoredManifest) -> StoredModel:
        manifest = stored.manifest
        config = parse_config(self._store.read_blob(manifest.config.digest, CONFIG_BYTES_MAX))
        weights = _weights_layer(manifest, config)
        facts = self._facts_of_layer(weights)
        projectors = manifest.of_type(PROJECTOR_TYPE)
        projector = self._facts_of_layer(projectors[0]) if projectors else None
        family = config.model_family or facts.architecture
        template = self._last_text(manifest, TEMPLATE_TYPE, OLD_TEMPLATE_TYPE)
        return StoredModel(
            name=stored.name,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            modified_at=stored.modified_at,
            details=ModelDetails(
                parent_model=weights.from_,
                format=config.model_format or "gguf",
                family=family,
                families=config.model_families or (family,),
                parameter_size=config.model_type or format_count(facts.n_params),
                quantization_level=config.file_type or facts.file_type,
            ),
            weights_id=WeightsId(str(weights.digest)),
            weights_path=self._store.blob_path(weights.digest),
            facts=facts,
            projector_paths=self._paths(projectors),
            adapter_paths=self._paths(manifest.of_type(ADAPTER_TYPE)),
            template=template,
            system=self._last_text(manifest, SYSTEM_TYPE) or "",
            licenses=tuple(self._text(layer) for layer in manifest.of_type(LICENSE_TYPE)),
            parameters=self._parameters(manifest),
            messages=self._messages(manifest),
            requires=config.requires,
            renderer=config.renderer,
            parser=config.parser,
            capabilities=capabilities(
                stated=config.capabilities or (),
                facts=facts,
                projector=projector,
                template=template,
                family=family,
            ),
        )

    def _facts_of_layer(self, layer: Layer) -> GgufFacts:
        size = self._store.blob_bytes(layer.digest)
        if size is not None and size != layer.size:
            raise ModelCorrupt(
                f"blob {layer.digest} has {size} bytes but should have {layer.size};"
                " pull or create the model again"
            )
        return self.facts(layer.digest)

    def _paths(self, layers: tuple[Layer, ...]) -> tuple[Path, ...]:
        for layer in layers:
            if not self._store.has_blob(layer.digest):
                raise BlobNotFound(f'blob "{layer.digest}" not found')
        return tuple(self._store.blob_path(layer.digest) for layer in layers)

    def _text(self, layer: Layer) -> str:
        return self._store.read_blob(layer.digest, TEXT_BYTES_MAX).decode("utf-8", "replace")

    def _last_text(self, manifest: Manifest, *media_types: str) -> str | None:
        layers = manifest.of_type(*media_types)
        return self._text(layers[-1]) if layers else None

    def _parameters(self, manifest: Manifest) -> dict[str, Any]:
        layers = manifest.of_type(PARAMETERS_TYPE)
        if not layers:
            return {}
        data = self._store.read_blob(layers[-1].digest, TEXT_BYTES_MAX)
        return decode_json(data, dict[str, Any], "parameters layer")

    def _messages(self, manifest: Manifest) -> tuple[StoredMessage, ...]:
        layers = manifest.of_type(MESSAGES_TYPE)
        if not layers:
            return ()
        data = self._store.read_blob(layers[-1].digest, TEXT_BYTES_MAX)
        read = decode_json(data, tuple[_MessageJson, ...], "messages layer")
        return tuple(StoredMessage(role=item.role, content=item.content) for item in read)


def _facts_or_reason(path: Path) -> GgufFacts | str:
    try:
        return facts_of(read_header(path))
    except NotGguf as exc:
        return exc.message


def _weights_layer(manifest: Manifest, config: ModelConfig) -> Layer:
    """Return the layer of the weights, the last of several.

    Raises ModelCorrupt; CloudDisabled if they are elsewhere.
    """
    weights = manifest.of_type(MODEL_TYPE)
    if weights:
        return weights[-1]
    if config.remote_host:
        raise CloudDisabled("ollama cloud is disabled: remote model is unavailable")
    if manifest.of_type(TENSOR_TYPE):
        raise ModelCorrupt("it is stored as safetensors, and only GGUF models can be run")
    raise ModelCorrupt("it has no weights; pull or create it again")
