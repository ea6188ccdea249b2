from __future__ import annotations

import dataclasses
import itertools
import typing

import pytest

from ollamad.buffersizes import GRAMMAR_TOKEN_BYTES, BufferSizes
from ollamad.config import KvType
from ollamad.gpu.estimate import (
    KV_ELEMENT_BITS,
    PROCESS_BYTES,
    ContextSettings,
    LayerDemand,
    MemoryDemand,
    demand_of,
)
from ollamad.modelinfo import GgufFacts, KvShape, LayerInfo
from ollamad.units import GIB, MIB
from tests.values import some_facts

LLAMA_8B = dataclasses.replace(
    some_facts(),
    n_embd=4096,
    n_vocab=128_256,
    n_head=32,
    n_ff=14_336,
    layers=(LayerInfo(weights_bytes=128 * MIB, n_head_kv=8),) * 32,
    kv_shape=KvShape(key_length=128, value_length=128),
    other_weights_bytes=700 * MIB,
    input_weights_bytes=300 * MIB,
)
"""Known to need 128 KiB of KV cache a token in f16: 512 MiB for 4096."""

SETTINGS = ContextSettings(n_ctx=4096, n_slots=1, n_batch=512, n_sequences=1)


def demand(facts: GgufFacts = LLAMA_8B, **settings: typing.Any) -> MemoryDemand:
    return demand_of(facts, dataclasses.replace(SETTINGS, **settings))


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


def test_a_context_has_whole_steps_of_cells() -> None:
    assert demand(n_ctx=1).kv_cache_bytes == demand(n_ctx=256).kv_cache_bytes
    assert demand(n_ctx=257).kv_cache_bytes == 2 * demand(n_ctx=256).kv_cache_bytes


def test_layers_that_keep_nothing_cost_no_cache() -> None:
    attention, other = (
        LayerInfo(weights_bytes=0, n_head_kv=8),
        LayerInfo(weights_bytes=0, n_head_kv=0),
    )
    mixed = dataclasses.replace(LLAMA_8B, layers=(attention, other) * 16)

    assert demand(mixed).kv_cache_bytes == demand().kv_cache_bytes // 2


def test_a_model_that_reads_its_input_at_once_has_no_cache() -> None:
    assert demand(dataclasses.replace(LLAMA_8B, keeps_context=False)).kv_cache_bytes == 0


def test_a_windowed_layer_keeps_a_window_of_each_sequence_and_a_batch() -> None:
    layer = LayerInfo(weights_bytes=0, n_head_kv=1, is_windowed=True)
    windowed = dataclasses.replace(
        LLAMA_8B, layers=(layer,), window=512, kv_shape=KvShape(key_length=1, value_length=1)
    )
    a_token = 2 * 2

    small = demand(windowed, n_ctx=100_000, n_sequences=4, swa_full=False)
    roomy = demand(windowed, n_ctx=100_000, n_sequences=4, swa_full=True)
    short = demand(windowed, n_ctx=1024, n_sequences=4, swa_full=False)

    assert small.kv_cache_bytes == (4 * 512 + 512) * a_token
    assert roomy.kv_cache_bytes == 100_096 * a_token
    assert short.kv_cache_bytes == 1024 * a_token


def test_a_layer_may_have_heads_of_its_own_size() -> None:
    own = LayerInfo(weights_bytes=0, n_head_kv=8, kv_shape=KvShape(key_length=64, value_length=64))

    halved = dataclasses.replace(LLAMA_8B, layers=(own,) * 32)

    assert demand(halved).kv_cache_bytes == demand().kv_cache_bytes // 2


def test_a_running_state_is_kept_for_each_sequence_whatever_the_context() -> None:
    state = LayerInfo(weights_bytes=0, n_head_kv=0, state_elements=1000)
    recurrent = dataclasses.replace(LLAMA_8B, layers=(state,) * 2)

    for n_ctx in (512, 65_536):
        assert demand(recurrent, n_ctx=n_ctx, n_sequences=8).kv_cache_bytes == 2 * 8 * 4000


def test_computing_has_room_for_a_batch_of_logits_and_for_little_else() -> None:
    logits_bytes = 512 * LLAMA_8B.n_vocab * 4

    assert logits_bytes < demand().compute_bytes < 1.1 * logits_bytes


def test_in_a_long_context_the_mask_is_what_computing_takes() -> None:
    mask_bytes = 1_048_576 * 512 * 2

    assert mask_bytes < demand(n_ctx=1_048_576).compute_bytes < 1.2 * mask_bytes


def test_without_flash_attention_every_head_has_a_table_of_all_tokens() -> None:
    tables_bytes = 32 * 4096 * 512 * 4

    taken = demand(has_flash_attention=False).compute_bytes

    assert tables_bytes < taken < 1.3 * tables_bytes


def test_a_step_has_as_many_tokens_of_every_sequence() -> None:
    assert dataclasses.replace(SETTINGS, n_sequences=28).n_rows == 532
    assert dataclasses.replace(SETTINGS, n_ubatch=100, n_sequences=7).n_rows == 105


def test_results_are_copied_out_for_every_sequence() -> None:
    assert demand(n_sequences=28).output_bytes == 28 * LLAMA_8B.n_vocab * 4


def test_the_total_is_the_sum_of_the_kinds() -> None:
    needed = demand_of(LLAMA_8B, SETTINGS, extra_bytes=GIB)

    assert needed.weights_bytes == (32 * 128 + 700) * MIB
    assert needed.process_bytes > PROCESS_BYTES
    assert needed.total_bytes == (
        needed.weights_bytes
        + needed.kv_cache_bytes
        + needed.compute_bytes
        + needed.output_bytes
        + needed.process_bytes
        + GIB
    )


def test_only_what_generates_has_room_for_the_vocabulary_of_grammars() -> None:
    generating, embedding = demand(), demand(embedding=True)

    more_bytes = generating.process_bytes - embedding.process_bytes
    assert more_bytes == LLAMA_8B.n_vocab * GRAMMAR_TOKEN_BYTES


def test_what_a_processor_repacks_is_there_twice_only_if_the_file_is_mapped() -> None:
    layer = LayerInfo(weights_bytes=128 * MIB, n_head_kv=8, repacked_bytes=100 * MIB)
    quantised = dataclasses.replace(LLAMA_8B, layers=(layer,) * 32)

    assert demand(quantised).weights_bytes == demand().weights_bytes + 3200 * MIB
    assert demand(quantised, is_mapped=False).weights_bytes == demand().weights_bytes


def test_an_encoder_needs_no_room_for_words() -> None:
    encoder = dataclasses.replace(LLAMA_8B, keeps_context=False)

    taken = demand(encoder, n_ctx=512, embedding=True).compute_bytes

    assert taken < 512 * encoder.n_vocab * 4


def test_offloading_everything_leaves_input_results_and_the_process_in_main_memory() -> None:
    needed = demand()

    assert needed.n_units == 33
    assert sum(needed.unit_bytes) == (32 * 128 + 400) * MIB + needed.kv_cache_bytes
    assert needed.host_bytes(0) == needed.total_bytes
    assert needed.host_bytes(33) == (
        300 * MIB + needed.process_bytes + needed.output_bytes + needed.transfer_bytes
    )


def test_each_unit_that_is_offloaded_frees_what_it_took() -> None:
    needed = demand()
    on_host = [needed.host_bytes(n) for n in range(needed.n_units + 1)]

    assert on_host[0] - on_host[1] == 400 * MIB
    for before, after in itertools.pairwise(on_host[1:-1]):
        assert before - after == 128 * MIB + 16 * MIB


def test_an_output_that_is_the_embeddings_is_copied_to_the_gpu_and_stays_in_main_memory() -> None:
    tied = dataclasses.replace(LLAMA_8B, other_weights_bytes=300 * MIB, tied_output_bytes=250 * MIB)

    needed = demand(tied)

    assert needed.unit_bytes[-1] == 250 * MIB
    assert needed.host_bytes(1) == needed.host_bytes(0)


def test_the_engine_s_own_sizes_replace_the_estimate_and_keep_its_proportions() -> None:
    needed = MemoryDemand(
        weights_bytes=10,
        kv_cache_bytes=30,
        compute_bytes=7,
        layers=(
            LayerDemand(weights_bytes=4, context_bytes=10),
            LayerDemand(weights_bytes=6, context_bytes=20),
        ),
    )

    known = needed.corrected(BufferSizes(context_bytes=60, compute_bytes=5, output_bytes=3))

    assert (known.kv_cache_bytes, known.compute_bytes, known.output_bytes) == (60, 5, 3)
    assert [layer.context_bytes for layer in known.layers] == [20, 40]
    assert known.weights_bytes == 10


def test_a_margin_is_one_on_all_but_the_weights_and_is_replaced_by_the_next() -> None:
    needed = demand()

    wider = needed.with_margin(1.5)

    assert wider.weights_bytes == needed.weights_bytes
    assert wider.compute_bytes == int(needed.compute_bytes * 1.5)
    assert sum(layer.context_bytes for layer in wider.layers) == wider.kv_cache_bytes
    back = wider.with_margin(1.0)
    assert abs(back.total_bytes - needed.total_bytes) < 64
    assert wider.with_margin(1.5).margin == 1.5
