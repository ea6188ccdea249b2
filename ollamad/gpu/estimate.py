"""How much memory a model will need: pure arithmetic over its header.

An upper estimate: what a load measures replaces it. All sizes are bytes.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from ollamad.modelinfo import GgufFacts
from ollamad.units import MIB

KV_ELEMENT_BITS: Final = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5}
"""Bits for one element of the KV cache, block scales included."""

PROCESS_BYTES: Final = 64 * MIB
"""The interpreter and llama.cpp's libraries before a model is loaded (measured: 40 to 60 MiB)."""

_ACTIVATION_COPIES: Final = 12
"""Activations of one token alive at once in a layer, as multiples of the embedding length."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDemand:
    """What a model needs, by kind."""

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    process_bytes: int = PROCESS_BYTES

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.process_bytes


def demand_of(
    facts: GgufFacts,
    *,
    n_ctx: int,
    n_slots: int,
    n_batch: int,
    kv_type: str,
    embedding: bool = False,
) -> MemoryDemand:
    """Return what *facts*'s model needs with these settings.

    For *embedding*, attention spans the whole batch.
    """
    per_head = facts.kv_shape.key_length + facts.kv_shape.value_length
    elements = sum(layer.n_head_kv for layer in facts.layers) * per_head
    kv_bits = elements * KV_ELEMENT_BITS[kv_type] * n_ctx * n_slots
    outputs = facts.n_vocab
    if embedding:
        # The output of every token, computed and copied out; encoders compute none of words.
        outputs = facts.n_embd if _is_encoder(facts) else 2 * facts.n_vocab
    compute_bytes = n_batch * (outputs + facts.n_embd * _ACTIVATION_COPIES) * 4
    if embedding:
        n_head = max((layer.n_head_kv for layer in facts.layers), default=0)
        compute_bytes += n_batch * n_batch * (n_head + 1) * 4
    return MemoryDemand(
        weights_bytes=facts.file_bytes,
        kv_cache_bytes=int(kv_bits // 8),
        compute_bytes=compute_bytes,
    )


def _is_encoder(facts: GgufFacts) -> bool:
    return any(mark in facts.architecture for mark in ("bert", "encoder", "embedding"))
