"""`create`: a new model from uploaded GGUF files or from a stored model, with a few layers changed.

Owns the order of things: everything is checked before anything is written, blobs come before the
manifest, and the manifest comes last. Converting, merging and quantising are not done here yet and
are refused with words that say so. There is no template to guess: weights that bring a chat
template are prompted with it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

from ollamad.convert.gguffacts import facts as facts_of
from ollamad.convert.ggufheader import read_header
from ollamad.errors import (
    InvalidBody,
    ModelCorrupt,
    ModelNotFound,
    NotGguf,
    StorageFailed,
    UnsupportedOption,
)
from ollamad.modelinfo import GgufFacts, StoredMessage
from ollamad.names import ModelName
from ollamad.options import OPTIONS, RETIRED_OPTIONS, option_value
from ollamad.registry.catalog import Catalog
from ollamad.registry.createconfig import config_of, info_fields
from ollamad.registry.digests import Digest
from ollamad.registry.manifest import (
    ADAPTER_TYPE,
    CONFIG_BYTES_MAX,
    CONFIG_TYPE,
    LICENSE_TYPE,
    MESSAGES_TYPE,
    MODEL_TYPE,
    OLD_TEMPLATE_TYPE,
    PARAMETERS_TYPE,
    PROJECTOR_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    TEXT_BYTES_MAX,
    Layer,
    Manifest,
    ModelConfig,
    encode_config,
    parse_config,
)
from ollamad.registry.manifestfiles import StoredManifest
from ollamad.registry.store import Store

log = logging.getLogger(__name__)

FILES_MAX: Final = 64
LICENSES_MAX: Final = 64
MESSAGES_MAX: Final = 4096
ROLES: Final = ("system", "user", "assistant", "tool")

_LAYER_KINDS: Final = {"adapter": ADAPTER_TYPE, "projector": PROJECTOR_TYPE}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CreateSpec:
    """What is to be created. An empty field says nothing, and what the base has stays."""

    name: ModelName
    from_: str = ""
    """A stored model. Wins over `files`."""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Digests of uploaded blobs, by the file's relative path."""
    adapters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    draft_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    messages: tuple[StoredMessage, ...] = ()
    quantize: str = ""
    remote_host: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CreateProgress:
    """One step, in Ollama's words."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class _Draft:
    """The model so far: its layers, and what is known of its weights."""

    layers: list[Layer]
    facts: GgufFacts
    families: tuple[str, ...]
    base: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def create(
    spec: CreateSpec,
    store: Store,
    catalog: Catalog,
    *,
    check_template: Callable[[str], None] | None = None,
    prune: bool = True,
) -> Generator[CreateProgress, None, None]:
    """Create the model, yielding each step. Closing it before `writing manifest` creates nothing.

    *check_template* raises TemplateBroken for a template that does not parse. With *prune*, blobs
    that only the replaced model needed are removed. Everything the caller can get wrong is raised
    before the first step that writes.
    Raises BadRequest's and NotFound's kinds, ModelCorrupt (of the base) and StorageFailed.
    """
    _refuse_unsupported(spec)
    files, adapters = _digests(spec.files), _digests(spec.adapters)
    if len(adapters) > 1:
        raise InvalidBody("only one adapter is currently supported")
    parameters = _checked_parameters(spec.parameters)
    info_fields(spec.info)
    _check_counts(spec)
    if spec.template and check_template is not None:
        check_template(spec.template)
    if spec.from_:
        draft = _from_model(spec.from_, store, catalog)
    elif files:
        draft = yield from _from_files(files, store)
    else:
        raise InvalidBody("neither 'from' or 'files' was specified")
    for file_name, digest in adapters.items():
        yield CreateProgress(status="parsing GGUF")
        draft.layers.append(_adapter_layer(file_name, digest, draft.facts, store))

    yield from _written(spec, parameters, draft, store, prune=prune)


def _written(
    spec: CreateSpec, parameters: Mapping[str, Any], draft: _Draft, store: Store, *, prune: bool
) -> Iterator[CreateProgress]:
    config = config_of(
        draft.facts,
        draft.families,
        base=draft.base,
        renderer=spec.renderer,
        parser=spec.parser,
        requires=spec.requires,
        info=spec.info,
    )
    layers, statuses = _layers_written(draft, _changes(spec, parameters, draft.parameters), store)
    config_digest, config_bytes = store.put_bytes(encode_config(config))
    for status in statuses:
        yield CreateProgress(status=status)
    yield CreateProgress(status="writing manifest")
    manifest = Manifest(
        config=Layer(media_type=CONFIG_TYPE, digest=config_digest, size=config_bytes),
        layers=layers,
    )
    target = store.resolve(spec.name)
    replaced = _replaced(target, store)
    store.write(target, manifest)
    if prune and replaced is not None:
        try:
            store.drop_unreferenced(replaced.manifest.digests - manifest.digests)
        except StorageFailed as exc:
            log.warning("%s is created, but blobs of its old version are left: %s", target, exc)
    yield CreateProgress(status="success")


def _refuse_unsupported(spec: CreateSpec) -> None:
    if spec.remote_host:
        raise UnsupportedOption("remote_host is not supported: models run on this machine only")
    if spec.draft_files:
        raise UnsupportedOption("draft_files are not supported yet: create the model without DRAFT")
    if spec.quantize:
        raise UnsupportedOption(
            "quantize is not supported yet: quantize the GGUF file first, then create from it"
        )


def _digests(files: Mapping[str, str]) -> dict[str, Digest]:
    """Return the files' digests by name, in order of their names. Raises InvalidBody."""
    if len(files) > FILES_MAX:
        raise InvalidBody(f"{len(files)} files, at most {FILES_MAX} are taken")
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise InvalidBody("file path must be relative")
    return {name: Digest.parse(files[name]) for name in sorted(files)}


def _checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters to store, as their own types. Raises UnsupportedOption."""
    checked: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in RETIRED_OPTIONS:
            log.info("leaving out parameter %s: it no longer does anything", name)
        elif name not in OPTIONS:
            raise UnsupportedOption(f"unknown parameter '{name[:80]}'")
        elif value is not None:
            checked[name] = option_value(name, OPTIONS[name], value)
    return checked


def _check_counts(spec: CreateSpec) -> None:
    if len(spec.licenses) > LICENSES_MAX:
        raise InvalidBody(f"{len(spec.licenses)} licenses, at most {LICENSES_MAX} are taken")
    if len(spec.messages) > MESSAGES_MAX:
        raise InvalidBody(f"{len(spec.messages)} messages, at most {MESSAGES_MAX} are taken")
    for message in spec.messages:
        if message.role not in ROLES:
            raise InvalidBody('message role must be one of "system", "user", or "assistant"')


def _from_model(wanted: str, store: Store, catalog: Catalog) -> _Draft:
    name = store.resolve(ModelName.parse(wanted))
    try:
        model = catalog.find(name)
        stored = store.read(name)
    except ModelNotFound:
        raise ModelNotFound(f'model "{wanted}" not found, try pulling it first') from None
    layers = [dataclasses.replace(layer, from_=name.display) for layer in stored.manifest.layers]
    return _Draft(
        layers=layers,
        facts=model.facts,
        families=model.details.families,
        base=parse_config(store.read_blob(stored.manifest.config.digest, CONFIG_BYTES_MAX)),
        parameters=model.parameters,
    )


def _from_files(
    files: Mapping[str, Digest], store: Store
) -> Generator[CreateProgress, None, _Draft]:
    layers: list[Layer] = []
    models: list[GgufFacts] = []
    for file_name, digest in files.items():
        if file_name.lower().endswith(".safetensors"):
            raise UnsupportedOption(
                "safetensors files are not supported yet: convert the model to GGUF first"
            )
        yield CreateProgress(status="parsing GGUF")
        facts = _facts_of_upload(file_name, digest, store)
        media_type = _LAYER_KINDS.get(facts.kind, MODEL_TYPE)
        layers.append(_file_layer(media_type, digest, file_name, facts))
        if media_type == MODEL_TYPE:
            models.append(facts)
    if not models:
        raise InvalidBody("the files hold no model: name the one they belong to in 'from'")
    families = tuple(dict.fromkeys(facts.architecture for facts in models))
    return _Draft(layers=layers, facts=models[-1], families=families)


def _adapter_layer(file_name: str, digest: Digest, model: GgufFacts, store: Store) -> Layer:
    facts = _facts_of_upload(file_name, digest, store)
    if facts.kind != "adapter":
        raise InvalidBody(f"{file_name} is no adapter but a {facts.kind}")
    if facts.architecture != model.architecture:
        raise InvalidBody(
            f"{file_name} is an adapter for {facts.architecture}, the model is {model.architecture}"
        )
    return _file_layer(ADAPTER_TYPE, digest, file_name, facts)


def _facts_of_upload(file_name: str, digest: Digest, store: Store) -> GgufFacts:
    """Return what an uploaded file says of itself, and keep it from being deleted meanwhile."""
    store.touch_blob(digest)
    try:
        header = read_header(store.blob_path(digest))
        n_parts = header.integer("split.count") or 0
        if n_parts > 1:
            raise UnsupportedOption(
                f"{file_name} is one of {n_parts} parts: split GGUF files are not supported yet,"
                " merge them first with llama-gguf-split --merge"
            )
        return facts_of(header)
    except NotGguf as exc:
        raise NotGguf(f"supplied file was not in GGUF format: {file_name}: {exc}") from exc


def _file_layer(media_type: str, digest: Digest, file_name: str, facts: GgufFacts) -> Layer:
    return Layer(media_type=media_type, digest=digest, size=facts.file_bytes, from_=file_name)


def _changes(
    spec: CreateSpec, parameters: Mapping[str, Any], inherited: Mapping[str, Any]
) -> list[tuple[str, bytes]]:
    """Return the text layers to write, by media type. Raises InvalidBody."""
    changes: list[tuple[str, bytes]] = []
    if spec.template:
        changes.append((TEMPLATE_TYPE, _utf8("template", spec.template)))
    if spec.system:
        changes.append((SYSTEM_TYPE, _utf8("system", spec.system)))
    changes += [(LICENSE_TYPE, _utf8("license", text)) for text in spec.licenses if text]
    if parameters:
        changes.append((PARAMETERS_TYPE, _json("parameters", {**inherited, **parameters})))
    if spec.messages:
        messages = [{"role": item.role, "content": item.content} for item in spec.messages]
        changes.append((MESSAGES_TYPE, _json("messages", messages)))
    return changes


def _utf8(field: str, text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidBody(f"{field} has a lone surrogate, which is no character") from None
    return _bounded(field, data)


def _json(field: str, value: object) -> bytes:
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise InvalidBody(f"{field} has a lone surrogate, which is no character") from None
    return _bounded(field, data)


def _bounded(field: str, data: bytes) -> bytes:
    if len(data) > TEXT_BYTES_MAX:
        raise InvalidBody(f"{field} is longer than {TEXT_BYTES_MAX} bytes")
    return data


def _layers_written(
    draft: _Draft, changes: list[tuple[str, bytes]], store: Store
) -> tuple[tuple[Layer, ...], list[str]]:
    """Write the changed layers; return all layers in order, and what to say of each.

    A licence is added to those there are; anything else takes the place of its kind.
    """
    replaced = {media_type for media_type, _ in changes} - {LICENSE_TYPE}
    if TEMPLATE_TYPE in replaced:
        replaced.add(OLD_TEMPLATE_TYPE)
    layers = [layer for layer in draft.layers if layer.media_type not in replaced]
    for layer in layers:
        store.touch_blob(layer.digest)
    statuses = [f"using existing layer {layer.digest}" for layer in layers]
    for media_type, data in changes:
        is_new = not store.has_blob(Digest.of(data))
        digest, size = store.put_bytes(data)
        layers.append(Layer(media_type=media_type, digest=digest, size=size))
        statuses.append(f"{'creating new' if is_new else 'using existing'} layer {digest}")
    return tuple(layers), statuses


def _replaced(target: ModelName, store: Store) -> StoredManifest | None:
    """Return what *target* stands for until now, if that can be told."""
    try:
        return store.read(target)
    except ModelNotFound:
        return None
    except ModelCorrupt as exc:
        log.warning("replacing a manifest that cannot be read; its blobs stay: %s", exc)
        return None
