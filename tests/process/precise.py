"""Rewrites a quantised model as a few layers in 32-bit floats.

Where weights and activations are not rounded, an answer does not depend on who else is in the
batch, so batching can be checked exactly.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

_LAYER = re.compile(r"blk\.(\d+)\.")
_SKIPPED = {"general.architecture", "general.file_type", "llama.block_count"}


def write_precise(
    source: Path,
    target: Path,
    *,
    n_layers: int,
    poisoned: bool = False,
    poisoned_token: int | None = None,
) -> None:
    """Write the first *n_layers* of a llama model to *target*, dequantised.

    A *poisoned* one has a NaN where every token meets it; with a *poisoned_token*, only texts with
    that token do.
    """
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in _SKIPPED:
            continue
        if field.types[0] is GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_block_count(n_layers)
    writer.add_file_type(0)
    for tensor in reader.tensors:
        layer = _LAYER.match(tensor.name)
        if layer is None or int(layer.group(1)) < n_layers:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            if poisoned and tensor.name == "output_norm.weight":
                values[0] = np.nan
            if poisoned_token is not None and tensor.name == "token_embd.weight":
                writer.add_tensor("output.weight", values.copy())
                values[poisoned_token] = np.nan
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
