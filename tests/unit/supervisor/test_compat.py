from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import msgspec
import pytest

from ollamad.config import RunnerConfig
from ollamad.modelinfo import KvShape, LayerInfo
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan, RopeOverrides, TensorOverride
from ollamad.supervisor.compat import (
    N_BATCH_AUTO,
    N_CTX_AUTO,
    N_CTX_EMBEDDING_AUTO,
    N_CTX_MIN,
    N_SLOTS_AUTO,
    N_SLOTS_EMBEDDING,
    PlanDefaults,
    clamp_n_ctx,
    plans,
    serves,
)
from ollamad.supervisor.events import Subject
from ollamad.units import GIB
from tests.values import N_CTX_TRAIN, a_subject

SUBJECT = a_subject()
UNKNOWN_LENGTH = dataclasses.replace(
    SUBJECT, facts=dataclasses.replace(SUBJECT.facts, n_ctx_train=0)
)
EMBEDDER = dataclasses.replace(SUBJECT, facts=dataclasses.replace(SUBJECT.facts, pooling_type=1))


def all_plans(
    options: LoadOptions | None = None,
    *,
    runner: RunnerConfig | None = None,
    subject: Subject = SUBJECT,
) -> list[LoadPlan]:
    defaults = PlanDefaults(runner or RunnerConfig(), n_cores=6)
    return [plan for plan, _ in plans(subject, options or LoadOptions(), defaults)]


@pytest.mark.parametrize(
    ("subject", "n_ctx", "clamped"),
    [
        (SUBJECT, 2048, 2048),
        (SUBJECT, N_CTX_TRAIN, N_CTX_TRAIN),
        (SUBJECT, N_CTX_TRAIN + 1, N_CTX_TRAIN),
        (SUBJECT, 1, N_CTX_MIN),
        (UNKNOWN_LENGTH, 10**6, 10**6),
        (UNKNOWN_LENGTH, 1, N_CTX_MIN),
    ],
)
def test_a_context_is_kept_within_what_the_model_was_trained_for(
    subject: Subject, n_ctx: int, clamped: int
) -> None:
    assert clamp_n_ctx(n_ctx, subject) == clamped


def test_without_any_statement_a_plan_takes_the_daemons_own_values() -> None:
    first = all_plans()[0]

    assert (first.n_ctx, first.n_slots, first.n_batch) == (N_CTX_AUTO, N_SLOTS_AUTO, N_BATCH_AUTO)
    assert (first.n_threads, first.use_mmap, first.embedding) == (6, True, False)
    assert first.model_path == SUBJECT.model_path


@pytest.mark.parametrize(
    ("options", "runner", "expected"),
    [
        (LoadOptions(n_ctx=2048), RunnerConfig(n_ctx=1024), {"n_ctx": 2048}),
        (LoadOptions(), RunnerConfig(n_ctx=1024), {"n_ctx": 1024}),
        (LoadOptions(n_batch=64), RunnerConfig(n_batch=256), {"n_batch": 64}),
        (LoadOptions(), RunnerConfig(n_batch=256), {"n_batch": 256}),
        (LoadOptions(n_ctx=100), RunnerConfig(), {"n_batch": 100}),
        (LoadOptions(n_threads=3), RunnerConfig(n_threads=2), {"n_threads": 3}),
        (LoadOptions(n_threads=0), RunnerConfig(n_threads=2), {"n_threads": 2}),
        (LoadOptions(use_mmap=False), RunnerConfig(use_mmap=True), {"use_mmap": False}),
        (LoadOptions(), RunnerConfig(use_mmap=False), {"use_mmap": False}),
        (LoadOptions(), RunnerConfig(kv_type="q8_0"), {"kv_type": "q8_0"}),
        (LoadOptions(kv_type="q4_0"), RunnerConfig(kv_type="q8_0"), {"kv_type": "q4_0"}),
        (LoadOptions(n_ubatch=32), RunnerConfig(), {"n_ubatch": 32}),
        (LoadOptions(n_ubatch=10**6), RunnerConfig(), {"n_ubatch": N_BATCH_AUTO}),
        (LoadOptions(main_gpu=1, tensor_split=(1, 2)), RunnerConfig(), {"tensor_split": (1, 2)}),
        (LoadOptions(use_mlock=True, swa_full=True), RunnerConfig(), {"swa_full": True}),
        (
            LoadOptions(flash_attention="off"),
            RunnerConfig(flash_attention="on"),
            {"flash_attention": "off"},
        ),
        (
            LoadOptions(tensor_overrides=("a=b=cpu",)),
            RunnerConfig(),
            {"tensor_overrides": (TensorOverride("a=b", "cpu"),)},
        ),
        (
            LoadOptions(rope_scaling="yarn", yarn_orig_ctx=4096),
            RunnerConfig(),
            {"rope": RopeOverrides(scaling="yarn", yarn_orig_ctx=4096)},
        ),
    ],
)
def test_a_request_overrides_the_configuration(
    options: LoadOptions, runner: RunnerConfig, expected: dict[str, Any]
) -> None:
    first = all_plans(options, runner=runner)[0]

    assert {name: getattr(first, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "runner", "n_slots"),
    [
        (LoadOptions(), RunnerConfig(), [4, 2, 1]),
        (LoadOptions(), RunnerConfig(n_slots=3), [3]),
        (LoadOptions(n_batch=1), RunnerConfig(), [2, 1]),
        (LoadOptions(n_batch=3), RunnerConfig(), [3, 1]),
        (LoadOptions(n_batch=2), RunnerConfig(n_slots=8), [2]),
    ],
    ids=["halved", "configured", "smallest-batches", "small-batches", "configured-too-many"],
)
def test_slots_are_halved_unless_configured_and_never_more_than_a_batch_has_tokens(
    options: LoadOptions, runner: RunnerConfig, n_slots: list[int]
) -> None:
    assert [plan.n_slots for plan in all_plans(options, runner=runner)] == n_slots


def test_plans_with_fewer_slots_need_less() -> None:
    defaults = PlanDefaults(RunnerConfig(), n_cores=1)

    needed = [demand.total_bytes for _, demand in plans(SUBJECT, LoadOptions(), defaults)]

    assert needed == sorted(set(needed), reverse=True)


def test_a_model_that_embeds_is_planned_so() -> None:
    facts = dataclasses.replace(SUBJECT.facts, pooling_type=1)

    assert all_plans(subject=dataclasses.replace(SUBJECT, facts=facts))[0].embedding


def pooling(pooling_type: int | None) -> Subject:
    facts = dataclasses.replace(SUBJECT.facts, pooling_type=pooling_type)
    return dataclasses.replace(SUBJECT, facts=facts)


@pytest.mark.parametrize("pooling_type", [0, 1, 2, 4])
@pytest.mark.parametrize("n_ctx", [None, 100, 4096])
@pytest.mark.parametrize("n_batch", [None, 64, 8192])
def test_a_model_that_reads_a_text_as_a_whole_has_a_batch_as_large_as_its_context(
    pooling_type: int, n_ctx: int | None, n_batch: int | None
) -> None:
    (plan,) = all_plans(LoadOptions(n_ctx=n_ctx, n_batch=n_batch), subject=pooling(pooling_type))

    assert plan.n_batch == plan.n_ctx == (n_ctx or N_CTX_EMBEDDING_AUTO)


@pytest.mark.parametrize("pooling_type", [None, 3])
def test_a_model_whose_last_token_counts_computes_a_text_in_parts(
    pooling_type: int | None,
) -> None:
    options = LoadOptions(embedding=True)

    (plan,) = all_plans(options, runner=RunnerConfig(n_slots=1), subject=pooling(pooling_type))

    assert (plan.n_ctx, plan.n_batch) == (N_CTX_EMBEDDING_AUTO, N_BATCH_AUTO)
    assert plan.n_slots == N_SLOTS_EMBEDDING


def test_all_requests_for_vectors_share_the_memory_of_one_context() -> None:
    defaults = PlanDefaults(RunnerConfig(kv_type="f32"), n_cores=1)

    ((plan, demand),) = plans(SUBJECT, LoadOptions(embedding=True), defaults)

    assert demand.kv_cache_bytes == plan.n_ctx * 2 * 4


def test_a_runner_generates_or_embeds() -> None:
    generating, embedding = LoadOptions(), LoadOptions(embedding=True)

    assert not serves(all_plans(generating)[0], SUBJECT, embedding)
    assert not serves(all_plans(embedding)[0], SUBJECT, generating)
    assert serves(all_plans(embedding)[0], SUBJECT, embedding)
    assert serves(all_plans(subject=EMBEDDER)[0], EMBEDDER, embedding)


@pytest.mark.parametrize("n_ctx", [None, 1, 100, 2048, N_CTX_TRAIN, 10**6])
@pytest.mark.parametrize("n_batch", [None, 1, 64, 4096])
@pytest.mark.parametrize("use_mmap", [None, True, False])
@pytest.mark.parametrize("n_threads", [None, 0, 2])
def test_every_plan_serves_the_request_it_was_made_for(
    n_ctx: int | None,
    n_batch: int | None,
    use_mmap: bool | None,
    n_threads: int | None,
) -> None:
    """Otherwise its runner would be loaded, found unfit, and loaded again without end."""
    stated = LoadOptions(n_ctx=n_ctx, n_batch=n_batch, use_mmap=use_mmap, n_threads=n_threads)

    for subject, embedding in itertools.product((SUBJECT, EMBEDDER), (None, True)):
        options = msgspec.structs.replace(stated, embedding=embedding)
        made = all_plans(options, subject=subject)
        assert made
        assert all(serves(plan, subject, options) for plan in made)


STATED: dict[str, Any] = {
    "n_ubatch": 64,
    "main_gpu": 1,
    "tensor_split": (1.0, 2.0),
    "tensor_overrides": ("exps=cpu",),
    "kv_type": "q8_0",
    "flash_attention": "off",
    "swa_full": False,
    "use_mlock": True,
    "rope_frequency_base": 1e6,
    "rope_frequency_scale": 0.5,
    "rope_scaling": "yarn",
    "yarn_ext_factor": 1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_orig_ctx": 4096,
}
"""A value for each option, that no plan has without being asked."""


@pytest.mark.parametrize("name", STATED)
def test_an_option_reloads_only_a_runner_that_was_loaded_otherwise(name: str) -> None:
    stated = LoadOptions(**{name: STATED[name]})

    plain, special = all_plans()[0], all_plans(stated)[0]

    assert not serves(plain, SUBJECT, stated)
    assert serves(special, SUBJECT, stated)
    assert serves(special, SUBJECT, LoadOptions())


def test_every_option_for_loading_is_looked_at() -> None:
    """`n_gpu_layers` is what placement decides; `embedding` has tests of its own."""
    looked_at = {*STATED, "n_ctx", "n_batch", "n_threads", "use_mmap", "n_gpu_layers"}

    assert looked_at | {"embedding"} == set(LoadOptions.__struct_fields__)


def test_another_position_encoding_reaches_beyond_what_the_model_was_trained_for() -> None:
    stretched = LoadOptions(n_ctx=2 * N_CTX_TRAIN, rope_scaling="yarn")
    plan = all_plans(stretched)[0]

    assert plan.n_ctx == 2 * N_CTX_TRAIN
    assert serves(plan, SUBJECT, stretched)
    assert serves(plan, SUBJECT, LoadOptions(n_ctx=2 * N_CTX_TRAIN))


@pytest.mark.parametrize(
    ("options", "is_served"),
    [
        (LoadOptions(), True),
        (LoadOptions(n_ctx=2048), True),
        (LoadOptions(n_ctx=2047), False),
        (LoadOptions(n_batch=256), True),
        (LoadOptions(n_batch=255), False),
        (LoadOptions(n_threads=3), True),
        (LoadOptions(n_threads=0), True),
        (LoadOptions(n_threads=4), False),
        (LoadOptions(use_mmap=True), True),
        (LoadOptions(use_mmap=False), False),
        (LoadOptions(n_ctx=2048, n_batch=256, n_threads=3, use_mmap=True), True),
        (LoadOptions(n_ctx=2048, n_batch=256, n_threads=4, use_mmap=True), False),
    ],
)
def test_only_a_stated_option_forces_a_reload(options: LoadOptions, is_served: bool) -> None:
    stated = LoadOptions(n_ctx=2048, n_batch=256, n_threads=3, use_mmap=True)

    assert serves(all_plans(stated)[0], SUBJECT, options) is is_served


def test_a_context_beyond_the_models_is_served_by_the_models() -> None:
    plan = all_plans(LoadOptions(n_ctx=N_CTX_TRAIN))[0]

    assert serves(plan, SUBJECT, LoadOptions(n_ctx=10**6))


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(SUBJECT, model_path="/models/other"),
        dataclasses.replace(SUBJECT, adapter_paths=("/models/adapter",)),
    ],
    ids=["weights", "adapter"],
)
def test_other_files_are_never_served(other: Subject) -> None:
    assert not serves(all_plans()[0], other, LoadOptions())


@pytest.mark.parametrize(
    ("asked", "n_ctx", "keeps_all"),
    [(None, 4096, True), (None, N_CTX_TRAIN, False), (True, N_CTX_TRAIN, True), (False, 64, False)],
)
def test_layers_with_a_window_keep_all_tokens_where_that_costs_little(
    asked: bool | None, n_ctx: int, keeps_all: bool
) -> None:
    dear = dataclasses.replace(
        SUBJECT,
        facts=dataclasses.replace(
            SUBJECT.facts,
            kv_shape=KvShape(key_length=GIB // 4096 // N_SLOTS_AUTO // 16, value_length=0),
            layers=(LayerInfo(weights_bytes=1, n_head_kv=8),),
        ),
    )

    first = all_plans(LoadOptions(swa_full=asked, n_ctx=n_ctx), subject=dear)[0]

    assert first.swa_full is keeps_all
