from __future__ import annotations

import dataclasses
import typing

import pytest

from ollamad.config import KvType
from ollamad.gpu.estimate import KV_ELEMENT_BITS, PROCESS_BYTES, MemoryDemand, demand_of
from ollamad.modelinfo import GgufFacts, KvShape, LayerInfo
from ollamad.units import GIB, MIB
from tests.values import some_facts

LLAMA_8B = dataclasses.replace(
    some_facts(weights_bytes=4 * GIB),
    n_embd=4096,
    n_vocab=128_256,
    layers=(LayerInfo(weights_bytes=0, n_head_kv=8),) * 32,
    kv_shape=KvShape(key_length=128, value_length=128),
)
"""Known to need 128 KiB of KV cache a token in f16: 512 MiB for 4096."""


def demand(
    facts: GgufFacts = LLAMA_8B,
    *,
    n_ctx: int = 4096,
    n_slots: int = 1,
    n_batch: int = 512,
    kv_type: str = "f16",
) -> MemoryDemand:
    return demand_of(facts, n_ctx=n_ctx, n_slots=n_slots, n_batch=n_batch, kv_type=kv_type)


@pytest.mark.parametrize(
    ("kv_type", "n_slots", "kv_cache_bytes"),
    [
        ("f16", 1, 512 * MIB),
        ("bf16", 1, 512 * MIB),
        ("f32", 1, 1024 * MIB),
        ("q8_0", 1, 272 * MIB),
        ("q4_0", 1, 144 * MIB),
        ("f16", 4, 2048 * MIB),
    ],
)
def test_the_kv_cache_grows_with_its_type_and_the_slots(
    kv_type: str, n_slots: int, kv_cache_bytes: int
) -> None:
    assert demand(kv_type=kv_type, n_slots=n_slots).kv_cache_bytes == kv_cache_bytes


def test_every_type_that_can_be_configured_has_its_bits() -> None:
    assert set(KV_ELEMENT_BITS) == set(typing.get_args(KvType))


def test_layers_that_keep_nothing_cost_no_cache() -> None:
    attention, recurrent = (
        LayerInfo(weights_bytes=0, n_head_kv=8),
        LayerInfo(weights_bytes=0, n_head_kv=0),
    )
    mixed = dataclasses.replace(LLAMA_8B, layers=(attention, recurrent) * 16)

    assert demand(mixed).kv_cache_bytes == demand().kv_cache_bytes // 2


def test_computing_grows_with_the_batch_and_has_room_for_its_logits() -> None:
    logits_bytes = 512 * LLAMA_8B.n_vocab * 4

    assert demand(n_batch=512).compute_bytes > logits_bytes
    assert demand(n_batch=512).compute_bytes == 2 * demand(n_batch=256).compute_bytes


def test_the_total_is_the_sum_of_the_kinds() -> None:
    needed = demand()

    assert needed.weights_bytes == 4 * GIB
    assert needed.total_bytes == (
        needed.weights_bytes + needed.kv_cache_bytes + needed.compute_bytes + PROCESS_BYTES
    )


def test_a_generating_model_that_embeds_needs_the_output_of_every_token_twice() -> None:
    """llama.cpp computes all of them then, and keeps a copy of what it computed."""
    generating = demand()
    embedding = demand_of(
        LLAMA_8B, n_ctx=4096, n_slots=1, n_batch=512, kv_type="f16", embedding=True
    )

    one_copy = 512 * LLAMA_8B.n_vocab * 4
    assert embedding.compute_bytes >= generating.compute_bytes + one_copy


def test_an_encoder_needs_room_for_attention_over_its_batch_but_none_for_words() -> None:
    encoder = dataclasses.replace(LLAMA_8B, architecture="nomic-bert", pooling_type=1)
    small, large = (
        demand_of(encoder, n_ctx=n, n_slots=1, n_batch=n, kv_type="f16", embedding=True)
        for n in (512, 2048)
    )

    assert small.compute_bytes < 512 * encoder.n_vocab * 4
    assert large.compute_bytes > 2048 * 2048 * 8 * 4
