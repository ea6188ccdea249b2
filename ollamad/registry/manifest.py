"""Manifests and config blobs: their types, media types, and bytes.

Owns the JSON, both ways. Knows nothing of files and folders, nor what a layer's content means.
Manifests come from registries and other programs, so everything in them is checked.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, TypeVar

import msgspec

from ollamad.errors import InvalidDigest, ModelCorrupt
from ollamad.registry.digests import Digest
from ollamad.units import MIB

MANIFEST_BYTES_MAX: Final = 4 * MIB
CONFIG_BYTES_MAX: Final = 4 * MIB
LAYERS_MAX: Final = 16_384
"""Layers of one manifest. Models kept one tensor a layer have thousands."""
LAYER_BYTES_MAX: Final = 1 << 50
TEXT_BYTES_MAX: Final = 16 * MIB
"""Bytes of a layer that is text: a template, a licence, parameters, messages."""

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
MODEL_TYPE: Final = "application/vnd.ollama.image.model"
PROJECTOR_TYPE: Final = "application/vnd.ollama.image.projector"
ADAPTER_TYPE: Final = "application/vnd.ollama.image.adapter"
DRAFT_TYPE: Final = "application/vnd.ollama.image.draft"
TEMPLATE_TYPE: Final = "application/vnd.ollama.image.template"
OLD_TEMPLATE_TYPE: Final = "application/vnd.ollama.image.prompt"
SYSTEM_TYPE: Final = "application/vnd.ollama.image.system"
PARAMETERS_TYPE: Final = "application/vnd.ollama.image.params"
MESSAGES_TYPE: Final = "application/vnd.ollama.image.messages"
LICENSE_TYPE: Final = "application/vnd.ollama.image.license"
TENSOR_TYPE: Final = "application/vnd.ollama.image.tensor"

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One blob of a manifest, and what it is for."""

    media_type: str
    digest: Digest
    size: int
    from_: str = ""
    """The model or file it came from."""
    name: str = ""
    """The tensor's or side file's name, in models kept one tensor a layer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a model consists of."""

    config: Layer
    layers: tuple[Layer, ...]
    schema_version: int = 2
    media_type: str = MANIFEST_TYPE

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers and the config."""
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def digests(self) -> frozenset[Digest]:
        """Every blob the model needs."""
        return frozenset({self.config.digest, *(layer.digest for layer in self.layers)})

    def of_type(self, *media_types: str) -> tuple[Layer, ...]:
        """The layers of any of *media_types*, in order."""
        return tuple(layer for layer in self.layers if layer.media_type in media_types)


class _LayerJson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    # Digests are strings here: msgspec would fill a dataclass from a JSON object, unchecked.
    media_type: str = msgspec.field(name="mediaType", default="")
    digest: str
    size: int
    from_: str = msgspec.field(name="from", default="")
    name: str = ""


class _ManifestJson(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int = msgspec.field(name="schemaVersion", default=2)
    media_type: str = msgspec.field(name="mediaType", default=MANIFEST_TYPE)
    config: _LayerJson
    layers: tuple[_LayerJson, ...] | None = None


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The config blob: facts about the model that Ollama keeps beside the weights."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = None
    model_type: str = ""
    """Parameter count for people: `8.0B`."""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] | None = None
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest in *data*. Raises ModelCorrupt."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise ModelCorrupt(f"the manifest is larger than {MANIFEST_BYTES_MAX} bytes")
    read = decode_json(data, _ManifestJson, "manifest")
    layers = read.layers or ()  # Go writes an empty list as null.
    if len(layers) > LAYERS_MAX:
        raise ModelCorrupt(f"the manifest has {len(layers)} layers, at most {LAYERS_MAX} are read")
    return Manifest(
        schema_version=read.schema_version,
        media_type=read.media_type,
        config=_layer_from(read.config),
        layers=tuple(_layer_from(layer) for layer in layers),
    )


def _layer_from(read: _LayerJson) -> Layer:
    if not 0 <= read.size <= LAYER_BYTES_MAX:
        raise ModelCorrupt(f"the manifest states an impossible layer size: {read.size}")
    try:
        digest = Digest.parse(read.digest)
    except InvalidDigest as exc:
        raise ModelCorrupt(f"the manifest names a broken digest: {read.digest[:80]!r}") from exc
    return Layer(
        media_type=read.media_type,
        digest=digest,
        size=read.size,
        from_=read.from_,
        name=read.name,
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as Ollama writes its own: compact JSON and a newline."""
    config, *layers = (
        _LayerJson(
            media_type=layer.media_type,
            digest=str(layer.digest),
            size=layer.size,
            from_=layer.from_,
            name=layer.name,
        )
        for layer in (manifest.config, *manifest.layers)
    )
    written = _ManifestJson(
        schema_version=manifest.schema_version,
        media_type=manifest.media_type,
        config=config,
        layers=tuple(layers),
    )
    return msgspec.json.encode(written) + b"\n"


def parse_config(data: bytes) -> ModelConfig:
    """Return the config blob in *data*. Raises ModelCorrupt."""
    return decode_json(data, ModelConfig, "config")


def encode_config(config: ModelConfig) -> bytes:
    """Return the config blob's bytes, with the fields Ollama always writes."""
    always = {
        "model_format": config.model_format,
        "model_family": config.model_family,
        "model_families": config.model_families,
        "model_type": config.model_type,
        "file_type": config.file_type,
    }
    stated: dict[str, Any] = msgspec.to_builtins(config)  # Any: JSON of several types.
    platform = {"architecture": "amd64", "os": "linux"}  # Constants, also on other machines.
    return msgspec.json.encode(always | stated | platform)


def decode_json(data: bytes, kind: type[_T], what: str) -> _T:
    """Return the JSON in *data* as *kind*. Raises ModelCorrupt, saying *what* cannot be read."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ModelCorrupt(f"the {what} cannot be read: {exc}") from exc
