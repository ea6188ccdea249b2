"""A store with two models that differ only in a line of metadata: other blobs, same weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from gguf import GGUFReader, GGUFValueType, GGUFWriter

from ollamad.names import ModelName
from ollamad.registry.catalog import Catalog
from ollamad.registry.create import CreateSpec, create
from ollamad.registry.embedded import embedded_model_file, install_embedded
from ollamad.registry.store import Store

FIRST: Final = "smollm2:135m"
SECOND: Final = "twin"
DIGEST_READ_BYTES: Final = 1 << 20


def prepare(models: Path, folder: Path) -> None:
    """Put both models into the store *models*; *folder* is for work."""
    models.mkdir(parents=True)
    store = Store(models)
    catalog = Catalog(store)
    install_embedded(store, catalog)
    source = embedded_model_file()
    assert source is not None, "install the extra `embedded`: the endurance tests use its model"
    copy = folder / "twin.gguf"
    write_twin(source, copy)
    digest, _ = store.put_bytes(copy.read_bytes())
    copy.unlink()
    spec = CreateSpec(name=ModelName.parse(SECOND), files={"twin.gguf": str(digest)})
    for _ in create(spec, store, catalog):
        pass


def write_twin(source: Path, target: Path) -> None:
    """Copy a model with another name in its metadata, and so with another digest."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in {"general.architecture", "general.name"}:
            continue
        if field.types[0] is GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_name("a twin")
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def broken_blobs(models: Path) -> list[str]:
    """Return the names of blobs whose content is not what their name says, and of strange files."""
    broken = []
    for blob in (models / "blobs").iterdir():
        digest = hashlib.sha256()
        with blob.open("rb") as file:
            while data := file.read(DIGEST_READ_BYTES):
                digest.update(data)
        if blob.name != f"sha256-{digest.hexdigest()}":
            broken.append(blob.name)
    return broken
