"""Policies, placements and experience in plans."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ollamad.buffersizes import BufferSizes
from ollamad.config import RunnerConfig
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceId, DeviceKind
from ollamad.gpu.placement import Placement, PlacementRules
from ollamad.modelpolicy import ModelPolicy
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan, MemoryUse
from ollamad.supervisor.compat import (
    N_BATCH_MIN,
    N_SLOTS_AUTO,
    PlanDefaults,
    learn,
    options_key,
    plans,
    rules_for,
    serves,
    with_placement,
)
from ollamad.supervisor.events import Subject
from ollamad.units import GIB, MIB
from tests.values import a_subject

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
DEVICES = [
    DeviceFacts(device=HOST, name="main memory", capacity_bytes=GIB),
    DeviceFacts(device=A, name="one", capacity_bytes=GIB, kind=DeviceKind.CUDA, index=0),
    DeviceFacts(device=B, name="other", capacity_bytes=GIB, kind=DeviceKind.CUDA, index=1),
]
N_UNITS = 2
"""The subject has one layer, and an output."""


def ruled(**policy: Any) -> Subject:
    return dataclasses.replace(a_subject(), policy=ModelPolicy(**policy))


def plan_of(
    subject: Subject, options: LoadOptions | None = None, runner: RunnerConfig | None = None
) -> LoadPlan:
    defaults = PlanDefaults(runner or RunnerConfig(), n_cores=2)
    return next(plans(subject, options or LoadOptions(), defaults))[0]


def test_a_policy_goes_before_the_runner_s_settings_and_a_request_before_both() -> None:
    subject = ruled(n_ctx=2048, kv_type="q8_0", parallel=3)
    runner = RunnerConfig(n_ctx=1024, kv_type="q4_0", n_slots=7)

    ruled_plan = plan_of(subject, runner=runner)
    asked_plan = plan_of(subject, LoadOptions(n_ctx=512, kv_type="f32"), runner)

    assert (ruled_plan.n_ctx, ruled_plan.kv_type, ruled_plan.n_slots) == (2048, "q8_0", 3)
    assert (asked_plan.n_ctx, asked_plan.kv_type, asked_plan.n_slots) == (512, "f32", 3)


def test_a_number_of_slots_that_a_policy_names_is_not_halved() -> None:
    defaults = PlanDefaults(RunnerConfig(), n_cores=2)

    fixed = list(plans(ruled(parallel=N_SLOTS_AUTO), LoadOptions(), defaults))

    assert [plan.n_slots for plan, _ in fixed] == [N_SLOTS_AUTO]


def test_a_policy_that_changes_forces_no_reload() -> None:
    plan = plan_of(ruled(n_ctx=2048))

    assert serves(plan, ruled(n_ctx=512, kv_type="q8_0", parallel=1), LoadOptions())


@pytest.mark.parametrize(
    ("policy", "n_gpu_layers", "rules"),
    [
        ({}, None, PlacementRules()),
        ({}, -1, PlacementRules()),
        ({}, 0, PlacementRules(n_gpu_layers=0)),
        ({}, 20, PlacementRules(n_gpu_layers=20)),
        ({"cpu_only": True}, 20, PlacementRules(allowed=frozenset(), n_gpu_layers=0)),
        ({"devices": ("1",)}, 20, PlacementRules(allowed=frozenset({B}), may_use_host=False)),
        ({"devices": (A, "host")}, 20, PlacementRules(allowed=frozenset({A}), n_gpu_layers=20)),
        ({"devices": ("host",)}, None, PlacementRules(allowed=frozenset())),
        ({"devices": ("7",)}, None, PlacementRules(allowed=frozenset(), may_use_host=False)),
    ],
    ids=[
        "nothing",
        "automatic",
        "none",
        "some",
        "cpu-only",
        "by-index",
        "gpu-and-host",
        "host",
        "a-device-that-is-not-there",
    ],
)
def test_rules_are_the_policy_s_and_within_it_the_request_s(
    policy: dict[str, Any], n_gpu_layers: int | None, rules: PlacementRules
) -> None:
    assert rules_for(ruled(**policy), LoadOptions(n_gpu_layers=n_gpu_layers), DEVICES) == rules


@pytest.mark.parametrize(
    ("asked", "placed", "asked_now", "is_served"),
    [
        (None, N_UNITS, None, True),
        (None, N_UNITS, -1, True),
        (None, N_UNITS, 99, True),
        (None, N_UNITS, 1, False),
        (None, N_UNITS, 0, False),
        (0, 0, 0, True),
        (0, 0, None, True),
        (20, 0, 20, True),
        (20, 0, 1, False),
    ],
    ids=[
        "unstated",
        "automatic",
        "all-is-all",
        "fewer",
        "none",
        "none-again",
        "unstated-after-none",
        "no-gpu-there",
        "no-gpu-there-and-another-number",
    ],
)
def test_a_runner_serves_requests_for_as_many_layers_as_it_has_or_was_asked_for(
    asked: int | None, placed: int, asked_now: int | None, is_served: bool
) -> None:
    subject = a_subject()
    plan = with_placement(
        plan_of(subject, LoadOptions(n_gpu_layers=asked)),
        Placement(amounts={}, n_gpu_layers=placed),
    )

    assert serves(plan, subject, LoadOptions(n_gpu_layers=asked_now)) is is_served


def test_a_policy_settles_where_a_request_would_ask_for_layers() -> None:
    plan = plan_of(ruled(cpu_only=True), LoadOptions(n_gpu_layers=5))

    assert plan.n_gpu_layers_asked is None
    assert serves(plan, ruled(cpu_only=True), LoadOptions(n_gpu_layers=9))


def test_a_placed_plan_says_what_the_runner_is_to_offload_and_how_it_is_split() -> None:
    split = Placement(amounts={}, n_gpu_layers=2, devices=(A, B), tensor_split=(1.0, 1.0))

    placed = with_placement(plan_of(a_subject()), split)
    asked = with_placement(plan_of(a_subject(), LoadOptions(tensor_split=(3.0, 1.0))), split)

    assert (placed.n_gpu_layers, placed.tensor_split) == (2, (1.0, 1.0))
    assert asked.tensor_split == (3.0, 1.0)
    assert serves(placed, a_subject(), LoadOptions())


def test_plans_that_need_the_same_memory_share_a_key_wherever_they_are_placed() -> None:
    plan = plan_of(a_subject())
    placed = with_placement(plan, Placement(amounts={}, n_gpu_layers=2))

    assert options_key(placed) == options_key(plan)
    assert options_key(plan_of(a_subject(), LoadOptions(n_threads=1))) == options_key(plan)
    assert options_key(plan_of(a_subject(), LoadOptions(n_ctx=512))) != options_key(plan)


SIZES = BufferSizes(context_bytes=10 * MIB, compute_bytes=20 * MIB, output_bytes=MIB)


def test_the_next_plan_needs_what_the_last_load_measured() -> None:
    defaults = PlanDefaults(RunnerConfig(), n_cores=2)
    plan, demand = next(plans(a_subject(), LoadOptions(), defaults))
    memory = MemoryUse(
        anonymous_bytes=90 * MIB, promised_bytes=30 * MIB, file_bytes=GIB, buffers=SIZES
    )

    learn(defaults.learned, plan, demand, memory)

    _, known = next(plans(a_subject(), LoadOptions(), defaults))
    assert abs(known.total_bytes - memory.held_bytes) < 16
    assert known.weights_bytes == demand.weights_bytes


def test_a_load_on_gpus_teaches_the_sizes_of_buffers_only() -> None:
    defaults = PlanDefaults(RunnerConfig(), n_cores=2)
    plan, demand = next(plans(a_subject(), LoadOptions(), defaults))
    placed = with_placement(plan, Placement(amounts={}, n_gpu_layers=2))
    memory = MemoryUse(anonymous_bytes=MIB, file_bytes=MIB, buffers=SIZES)

    learn(defaults.learned, placed, demand, memory)

    _, known = next(plans(a_subject(), LoadOptions(), defaults))
    assert known.kv_cache_bytes == SIZES.context_bytes
    assert known.margin == 1.0


def test_files_loaded_beside_the_weights_count() -> None:
    defaults = PlanDefaults(RunnerConfig(), n_cores=2)
    subject = dataclasses.replace(a_subject(), extra_bytes=GIB)

    _, plain = next(plans(a_subject(), LoadOptions(), defaults))
    _, more = next(plans(subject, LoadOptions(), defaults))

    assert more.total_bytes - plain.total_bytes == GIB


def test_a_batch_is_never_too_small_for_the_engine() -> None:
    plan = plan_of(a_subject(), LoadOptions(n_batch=1))

    assert plan.n_batch == N_BATCH_MIN
    assert serves(plan, a_subject(), LoadOptions(n_batch=1))
