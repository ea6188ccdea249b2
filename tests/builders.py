"""Small honest values for tests. Named arguments only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ollamad.registry.catalog import Catalog
from ollamad.registry.create import CreateProgress, CreateSpec, create
from ollamad.registry.digests import Digest
from ollamad.registry.store import Store

TOKENS = ("<unk>", "<s>", "</s>", "a", "b")


def a_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    kind: str | None = "model",
    n_layer: int = 2,
    n_embd: int = 32,
    n_head: int = 4,
    n_head_kv: int | Sequence[int] | None = 2,
    n_ctx_train: int = 128,
    tokenizer: str = "llama",
    tokens: Sequence[str] = TOKENS,
    chat_template: str | None = None,
    file_type: int | None = 1,
    metadata: Mapping[str, Any] | None = None,
    tensors: bool = True,
) -> Path:
    """Write a small valid GGUF file to *path*; `metadata` is added with the types of its values."""
    writer: Any = gguf.GGUFWriter(path, architecture)
    if kind is not None:
        writer.add_type(kind)
    if file_type is not None:
        writer.add_file_type(file_type)
    if n_layer:
        writer.add_block_count(n_layer)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_head_count(n_head)
    if n_head_kv is not None:
        writer.add_head_count_kv(n_head_kv)
    if tokenizer:
        writer.add_tokenizer_model(tokenizer)
        writer.add_token_list(list(tokens))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for key, value in (metadata or {}).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
        add.get(type(value), writer.add_array)(key, value)
    if tensors:
        writer.add_tensor("token_embd.weight", np.zeros((len(tokens), n_embd), dtype=np.float16))
        for layer in range(n_layer):
            writer.add_tensor(f"blk.{layer}.attn_q.weight", np.zeros((n_embd,), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def a_gguf_blob(store: Store, folder: Path, **fields: Any) -> Digest:
    """Put a small GGUF file into the store, as an upload would; return its digest."""
    path = a_gguf(folder / "built.gguf", **fields)
    digest, _ = store.put_bytes(path.read_bytes())
    path.unlink()
    return digest


def created(store: Store, spec: CreateSpec, *, catalog: Catalog | None = None) -> list[str]:
    """Create the model and return the statuses told."""
    steps: list[CreateProgress] = list(create(spec, store, catalog or Catalog(store)))
    return [step.status for step in steps]
