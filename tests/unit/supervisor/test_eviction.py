from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.modelpolicy import ModelPolicy
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.states import RunnerState
from ollamad.supervisor.events import RunnerId, TicketId
from ollamad.supervisor.eviction import EXACT_MAX, choose_victims
from ollamad.supervisor.residents import Resident
from tests.values import a_subject

GPU, OTHER = DeviceId("GPU-1"), DeviceId("GPU-2")


def idle(
    number: int,
    n_bytes: int,
    since: float,
    *,
    device: DeviceId = HOST,
    ready_at: float = -math.inf,
    priority: int = 0,
) -> Resident:
    """Return a runner of *n_bytes* that nobody has used *since*."""
    return Resident(
        runner=RunnerId(number),
        subject=dataclasses.replace(a_subject(), policy=ModelPolicy(priority=priority)),
        plan=LoadPlan(model_path="/models/x", n_ctx=64, n_slots=1, n_batch=8),
        demand=MemoryDemand(
            weights_bytes=n_bytes, kv_cache_bytes=0, compute_bytes=0, process_bytes=0
        ),
        placement=Placement(amounts={device: n_bytes}),
        keep_alive_s=300,
        state=RunnerState.READY,
        idle_since=since,
        ready_at=ready_at,
    )


def frees(residents: Sequence[Resident], device: DeviceId = HOST) -> int:
    return sum(r.placement.amounts.get(device, 0) for r in residents)


@pytest.mark.parametrize(
    ("residents", "missing", "victims"),
    [
        ([idle(1, 10, 5)], 0, []),
        ([], 1, None),
        ([idle(1, 10, 5)], 10, [1]),
        ([idle(1, 10, 5)], 11, None),
        ([idle(1, 10, 9), idle(2, 10, 5)], 10, [2]),
        ([idle(2, 10, 5), idle(1, 10, 5)], 10, [1]),
        ([idle(1, 10, 5), idle(2, 10, 9)], 20, [1, 2]),
        ([idle(1, 5, 1), idle(2, 50, 2), idle(3, 50, 3)], 50, [2]),
        ([idle(1, 100, 1), idle(2, 20, 1)], 10, [2]),
        ([idle(1, 50, 1, device=GPU), idle(2, 50, 2)], 50, [2]),
        ([idle(1, 50, 1, device=GPU)], 50, None),
    ],
    ids=[
        "enough-anyway", "nobody-to-evict", "exactly-enough", "not-enough", "longest-idle-first",
        "equally-idle-the-older-runner", "several", "nobody-in-vain",
        "the-faster-to-load-again", "only-who-holds-the-device",
        "nobody-holds-the-device",
    ],
)  # fmt: skip
@pytest.mark.parametrize("bystanders", [0, EXACT_MAX], ids=["few", "many"])
def test_idle_runners_make_room(
    residents: list[Resident], missing: int, victims: list[int] | None, bystanders: int
) -> None:
    """Also among many, where not all sets are tried."""
    others = [idle(10 + n, 1, 9, device=OTHER) for n in range(bystanders)]

    chosen = choose_victims([*residents, *others], lambda rs: frees(rs) >= missing, now=10)

    assert (chosen if chosen is None else sorted(r.runner for r in chosen)) == victims


def chosen_of(residents: list[Resident], missing: int, **settings: float) -> list[int] | None:
    chosen = choose_victims(residents, lambda rs: frees(rs) >= missing, 100.0, **settings)
    return None if chosen is None else [r.runner for r in chosen]


def test_the_cheapest_set_leaves_and_not_the_cheapest_runners() -> None:
    assert chosen_of([idle(1, 30, 1), idle(2, 30, 1), idle(3, 50, 1)], 50) == [3]


def test_one_that_was_just_loaded_is_spared_unless_nothing_else_makes_room() -> None:
    fresh, old = idle(1, 10, 99, ready_at=95), idle(2, 1000, 99, ready_at=0)

    assert chosen_of([fresh, old], 10) == [1]
    assert chosen_of([fresh, old], 10, min_residence_s=10) == [2]
    assert chosen_of([fresh], 10, min_residence_s=10) == [1]


def test_the_lower_priority_goes_first() -> None:
    important, other = idle(1, 10, 0, priority=5), idle(2, 1000, 99)

    assert chosen_of([important, other], 10) == [2]


def test_an_idle_one_goes_before_one_in_use_whatever_it_costs() -> None:
    busy, costly = idle(1, 10, math.inf), idle(2, 1000, 99, priority=9)
    busy.leases.add(TicketId(1))

    assert chosen_of([busy, costly], 10) == [2]
    assert chosen_of([busy], 10) == [1]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), max_size=9),
    missing=st.integers(0, 60),
)
def test_nobody_leaves_in_vain_and_somebody_leaves_if_that_helps(
    sizes: list[tuple[int, int]], missing: int
) -> None:
    residents = [idle(n, size, since) for n, (size, since) in enumerate(sizes)]

    chosen = choose_victims(residents, lambda rs: frees(rs) >= missing, now=100)

    if chosen is None:
        assert frees(residents) < missing
    else:
        assert frees(chosen) >= missing
        for victim in chosen:
            assert frees(chosen) - victim.placement.amounts[HOST] < missing
