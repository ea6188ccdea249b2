from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceId, DeviceKind, DeviceReading
from ollamad.gpu.estimate import DEVICE_CONTEXT_BYTES, LayerDemand, MemoryDemand
from ollamad.gpu.limits import DeviceLimits
from ollamad.gpu.placement import (
    Placement,
    PlacementRules,
    environment_for,
    explain_misfit,
    place,
)
from ollamad.units import GIB, MIB

A, B, C = (DeviceId(f"GPU-{letter}") for letter in "abc")

DEMAND = MemoryDemand(
    weights_bytes=40 * GIB,
    kv_cache_bytes=10 * GIB,
    compute_bytes=512 * MIB,
    process_bytes=128 * MIB,
    layers=(LayerDemand(weights_bytes=900 * MIB, context_bytes=256 * MIB),) * 40,
    output_device_bytes=GIB,
    output_host_bytes=GIB,
    transfer_bytes=16 * MIB,
)
"""40 layers of 1156 MiB, and the output."""
ON_GPU = 40 * 1156 * MIB + GIB
FIXED = 512 * MIB + DEVICE_CONTEXT_BYTES
PLENTY = 1 << 50


def test_without_a_gpu_everything_goes_to_main_memory() -> None:
    placement = place(DEMAND, {HOST: DEMAND.total_bytes})

    assert placement == Placement(amounts={HOST: DEMAND.total_bytes})
    assert environment_for(Placement(amounts={})) == {"CUDA_VISIBLE_DEVICES": "-1"}


def test_what_does_not_fit_main_memory_goes_nowhere() -> None:
    assert place(DEMAND, {HOST: DEMAND.total_bytes - 1}) is None
    assert place(DEMAND, {}) is None


def test_a_whole_model_goes_on_the_gpu_that_it_fills_best() -> None:
    room = {HOST: PLENTY, A: 80 * GIB, B: 60 * GIB, C: 40 * GIB}

    placement = place(DEMAND, room)

    assert placement is not None
    assert placement.devices == (B,)
    assert placement.n_gpu_layers == 41
    assert placement.tensor_split == ()
    assert placement.amounts == {HOST: DEMAND.host_bytes(41), B: ON_GPU + FIXED}
    assert environment_for(placement) == {"CUDA_VISIBLE_DEVICES": "GPU-b"}


def test_a_model_too_large_for_one_gpu_is_split_in_proportion_over_as_few_as_will_do() -> None:
    room = {HOST: PLENTY, A: 24 * GIB, B: 40 * GIB, C: 12 * GIB}

    placement = place(DEMAND, room)

    assert placement is not None
    assert placement.devices == (B, A)
    assert sum(placement.tensor_split) == placement.n_gpu_layers == 41
    shares = [placement.amounts[device] / room[device] for device in (A, B)]
    assert abs(shares[0] - shares[1]) < 0.08


def test_what_fits_no_gpus_together_stays_partly_in_main_memory() -> None:
    placement = place(DEMAND, {HOST: PLENTY, A: 24 * GIB})

    assert placement is not None
    assert 0 < placement.n_gpu_layers < 41
    assert placement.amounts[HOST] == DEMAND.host_bytes(placement.n_gpu_layers)
    assert placement.amounts[A] <= 24 * GIB
    assert place(DEMAND, {HOST: PLENTY, A: placement.amounts[A] - 1}) != placement


@pytest.mark.parametrize(
    ("rules", "n_gpu_layers", "devices"),
    [
        (PlacementRules(n_gpu_layers=0), 0, ()),
        (PlacementRules(n_gpu_layers=10), 10, (B,)),
        (PlacementRules(n_gpu_layers=99), 41, (A,)),
        (PlacementRules(allowed=frozenset({A})), 41, (A,)),
        (PlacementRules(allowed=frozenset()), 0, ()),
        (PlacementRules(allowed=frozenset(), n_gpu_layers=7), 0, ()),
        (PlacementRules(allowed=frozenset({B}), may_offload_partly=False), 0, ()),
    ],
    ids=["none", "some", "more-than-all", "one-gpu", "no-gpu", "no-gpu-asked", "all-or-none"],
)
def test_rules_restrict_a_placement(
    rules: PlacementRules, n_gpu_layers: int, devices: tuple[DeviceId, ...]
) -> None:
    placement = place(DEMAND, {HOST: PLENTY, A: 80 * GIB, B: 40 * GIB}, rules)

    assert placement is not None
    assert (placement.n_gpu_layers, placement.devices) == (n_gpu_layers, devices)


@pytest.mark.parametrize(
    "rules",
    [
        PlacementRules(n_gpu_layers=41),
        PlacementRules(may_use_host=False),
        PlacementRules(may_use_host=False, allowed=frozenset()),
    ],
)
def test_what_is_asked_for_exactly_or_bound_to_gpus_is_not_made_less(rules: PlacementRules) -> None:
    assert place(DEMAND, {HOST: PLENTY, A: 24 * GIB}, rules) is None


def test_a_model_that_may_not_be_split_is_not() -> None:
    room = {HOST: PLENTY, A: 40 * GIB, B: 40 * GIB}

    placement = place(DEMAND, room, PlacementRules(may_split=False))

    assert placement is not None
    assert len(placement.devices) == 1
    assert placement.n_gpu_layers < 41


def test_a_model_without_known_layers_stays_in_main_memory() -> None:
    whole = dataclasses.replace(DEMAND, layers=())

    placement = place(whole, {HOST: PLENTY, A: PLENTY})

    assert placement is not None
    assert placement.devices == ()


# Properties

GPUS = [DeviceId(f"GPU-{number}") for number in range(5)]

layers = st.builds(
    LayerDemand,
    weights_bytes=st.integers(0, 4 * GIB),
    context_bytes=st.integers(0, GIB),
    repacked_bytes=st.integers(0, GIB),
)


@st.composite
def demands(draw: st.DrawFn) -> MemoryDemand:
    chosen = tuple(draw(st.lists(layers, max_size=12)))
    own_output = draw(st.integers(0, GIB))
    return MemoryDemand(
        weights_bytes=sum(one.weights_bytes + one.repacked_bytes for one in chosen) + own_output,
        kv_cache_bytes=sum(one.context_bytes for one in chosen),
        compute_bytes=draw(st.integers(0, GIB)),
        layers=chosen,
        output_device_bytes=own_output + draw(st.integers(0, GIB)),
        output_host_bytes=own_output,
    )


rooms = st.dictionaries(
    st.sampled_from([HOST, *GPUS]), st.integers(-GIB, 40 * GIB), max_size=len(GPUS) + 1
)
any_rules = st.builds(
    PlacementRules,
    allowed=st.none() | st.frozensets(st.sampled_from(GPUS)),
    n_gpu_layers=st.none() | st.integers(0, 14),
    may_split=st.booleans(),
    may_offload_partly=st.booleans(),
    may_use_host=st.booleans(),
)


@given(demands(), rooms, any_rules)
def test_a_placement_keeps_within_every_room_and_every_rule(
    demand: MemoryDemand, room: Mapping[DeviceId, int], rules: PlacementRules
) -> None:
    placement = place(demand, room, rules)

    assert placement == place(demand, dict(reversed(list(room.items()))), rules)
    if placement is None:
        return
    assert all(n_bytes <= room[device] for device, n_bytes in placement.amounts.items())
    assert set(placement.amounts) == {HOST, *placement.devices}
    assert rules.allowed is None or rules.allowed.issuperset(placement.devices)
    assert len(placement.devices) <= (len(GPUS) if rules.may_split else 1)


@given(demands(), rooms, any_rules)
def test_a_placement_uses_each_layer_exactly_once(
    demand: MemoryDemand, room: Mapping[DeviceId, int], rules: PlacementRules
) -> None:
    placement = place(demand, room, rules)
    if placement is None:
        return

    n_offloaded = placement.n_gpu_layers
    counts = [int(share) for share in placement.tensor_split] or [n_offloaded]
    assert sum(counts) == n_offloaded
    assert not placement.devices or all(counts)
    units = demand.unit_bytes[demand.n_units - n_offloaded :] if n_offloaded else ()
    assert placement.amounts[HOST] == demand.host_bytes(n_offloaded)
    on_gpus = sum(placement.amounts[device] for device in placement.devices)
    assert on_gpus == sum(units) + len(placement.devices) * demand.device_fixed_bytes


@given(demands(), rooms, any_rules, st.sampled_from([HOST, *GPUS]), st.integers(0, 40 * GIB))
def test_more_room_never_makes_a_model_fit_worse(
    demand: MemoryDemand,
    room: Mapping[DeviceId, int],
    rules: PlacementRules,
    device: DeviceId,
    more: int,
) -> None:
    before = place(demand, room, rules)
    # A device that appears is another matter: a number of layers means nothing without any.
    after = place(demand, {**room, device: room[device] + more} if device in room else room, rules)

    if before is not None and (room.get(device, 0) > 0 or device == HOST):
        assert after is not None
        assert after.n_gpu_layers >= before.n_gpu_layers


@given(demands(), rooms)
def test_one_gpu_is_preferred_to_several(
    demand: MemoryDemand, room: Mapping[DeviceId, int]
) -> None:
    placement = place(demand, room)

    if placement is not None and len(placement.devices) > 1:
        alone = place(demand, room, PlacementRules(may_split=False))
        assert alone is None or alone.n_gpu_layers < placement.n_gpu_layers


# Why not


def a_budget() -> Budget:
    host = DeviceFacts(device=HOST, name="main memory", capacity_bytes=32 * GIB)
    gpu = DeviceFacts(device=A, name="a GPU", capacity_bytes=8 * GIB, kind=DeviceKind.CUDA, index=0)
    budget = Budget([host, gpu], lambda facts: DeviceLimits(facts.capacity_bytes, GIB))
    budget.take_reading(DeviceReading(device=HOST, used_bytes=4 * GIB))
    budget.reserve(7, {A: 3 * GIB})
    return budget


@pytest.mark.parametrize(
    "said",
    [
        "needs 50.6 GiB of memory",
        "weights 40.0 GiB",
        "KV cache 10.0 GiB",
        "computing 512.0 MiB",
        "the process itself 128.0 MiB",
        "on each GPU that it uses 512.0 MiB more",
        "of main memory only 27.0 GiB can be had (other programs use 4.0 GiB, 1.0 GiB are kept",
        "of GPU-a only 7.0 GiB can be had",
        "llama3:8b holds 3.0 GiB",
        "try a smaller num_ctx, a smaller model, or a smaller quantisation",
    ],
)
def test_a_misfit_is_explained_with_its_numbers_and_what_to_do(said: str) -> None:
    assert said in explain_misfit(DEMAND, a_budget(), {7: "llama3:8b"})


def test_a_misfit_names_the_remedy_for_what_was_asked() -> None:
    asked = explain_misfit(DEMAND, a_budget(), rules=PlacementRules(n_gpu_layers=41))
    bound = explain_misfit(DEMAND, a_budget(), rules=PlacementRules(may_use_host=False))
    on_host = explain_misfit(DEMAND, a_budget(), rules=PlacementRules(allowed=frozenset()))

    assert "a smaller num_gpu" in asked
    assert "adding host to the devices" in bound
    assert "GPU" not in on_host


def test_a_short_context_is_not_told_to_be_shorter() -> None:
    short = dataclasses.replace(DEMAND, kv_cache_bytes=MIB, extra_bytes=GIB)

    said = explain_misfit(short, a_budget())

    assert "num_ctx" not in said
    assert "adapters and projectors 1.0 GiB" in said
