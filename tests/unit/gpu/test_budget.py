from __future__ import annotations

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceId, DeviceReading
from ollamad.gpu.limits import DeviceLimits

GPU = DeviceId("GPU-1")


def a_budget(*, host: int = 100, gpu: int = 50, host_headroom: int = 10) -> Budget:
    devices = [
        DeviceFacts(device=HOST, name="host", capacity_bytes=host),
        DeviceFacts(device=GPU, name="gpu", capacity_bytes=gpu),
    ]
    return Budget(
        devices,
        lambda facts: DeviceLimits(
            facts.capacity_bytes, host_headroom if facts.device == HOST else 0
        ),
    )


def reading(used_bytes: int, device: DeviceId = HOST) -> DeviceReading:
    return DeviceReading(device=device, used_bytes=used_bytes)


def test_free_is_capacity_less_headroom_less_others_less_reservations() -> None:
    budget = a_budget()
    budget.take_reading(reading(20))
    budget.reserve("a", {HOST: 30})

    assert budget.devices == (HOST, GPU)
    assert budget.free_bytes(HOST) == 100 - 10 - 20 - 30
    assert budget.ceiling_bytes(HOST) == 100 - 10 - 20
    assert budget.reserved_bytes(HOST) == 30
    assert budget.free_bytes(GPU) == budget.ceiling_bytes(GPU) == 50


@pytest.mark.parametrize(
    ("amounts", "fits", "could_fit"),
    [
        ({}, True, True),
        ({HOST: 50}, True, True),
        ({HOST: 51}, False, True),
        ({HOST: 90}, False, True),
        ({HOST: 91}, False, False),
        ({HOST: 50, GPU: 50}, True, True),
        ({HOST: 50, GPU: 51}, False, False),
    ],
)
def test_what_fits_now_is_told_from_what_could_ever_fit(
    amounts: dict[DeviceId, int], fits: bool, could_fit: bool
) -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 40})

    assert budget.fits(amounts) is fits
    assert all(budget.ceilings()[device] >= n for device, n in amounts.items()) is could_fit


def test_a_reservation_that_does_not_fit_is_a_bug_and_changes_nothing() -> None:
    budget = a_budget()

    with pytest.raises(ProtocolBroken, match="does not fit"):
        budget.reserve("a", {HOST: 1, GPU: 51})

    assert budget.reserved_bytes(HOST) == budget.reserved_bytes(GPU) == 0


def test_releasing_is_idempotent_and_touches_only_the_holder() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 10, GPU: 10})
    budget.reserve("b", {HOST: 5})

    for _ in range(2):
        budget.release("a")

    assert (budget.reserved_bytes(HOST), budget.reserved_bytes(GPU)) == (5, 0)


def test_what_a_load_measures_replaces_its_estimate() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 40})
    budget.correct("a", {HOST: 30}, {HOST: 25})

    assert budget.reserved_bytes(HOST) == 30


def test_our_own_measured_use_is_not_what_others_use() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 40})
    budget.correct("a", {HOST: 30}, {HOST: 25})

    budget.take_reading(reading(35))
    assert budget.others_bytes(HOST) == 10
    budget.take_reading(reading(20))
    assert budget.others_bytes(HOST) == 0

    budget.release("a")
    budget.take_reading(reading(20))
    assert budget.others_bytes(HOST) == 20


def test_a_correction_for_nobody_changes_nothing() -> None:
    budget = a_budget()
    budget.correct("gone", {HOST: 30}, {HOST: 30})
    budget.take_reading(reading(30))

    assert budget.reserved_bytes(HOST) == 0
    assert budget.others_bytes(HOST) == 30


def test_when_others_take_what_we_hold_free_is_negative_and_the_ceiling_is_not() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 60})
    budget.take_reading(reading(95))

    assert budget.free_bytes(HOST) == -65
    assert budget.ceiling_bytes(HOST) == 0
    assert not budget.fits({HOST: 0})


def test_a_reading_of_a_device_that_is_not_ours_is_ignored() -> None:
    budget = a_budget()
    budget.take_reading(reading(5, DeviceId("GPU-9")))

    assert budget.others_bytes(GPU) == 0


def test_memory_that_a_runner_touches_later_is_not_taken_for_others_use() -> None:
    """A runner that was promised 60 has touched 10 when it is loaded, and 55 later."""
    budget = a_budget()
    budget.reserve("a", {HOST: 60})
    budget.correct("a", {HOST: 60}, {HOST: 10})
    budget.take_reading(reading(10 + 20), own_bytes=10)
    assert budget.others_bytes(HOST) == 20

    budget.take_reading(reading(55 + 20), own_bytes=55)

    assert budget.others_bytes(HOST) == 20
    assert budget.free_bytes(HOST) == 100 - 10 - 20 - 60


def test_with_our_use_of_the_moment_a_reading_may_be_taken_while_a_runner_loads() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 60})

    budget.take_reading(reading(33), own_bytes=28)

    assert budget.others_bytes(HOST) == 5


def test_our_use_may_be_read_a_moment_after_the_device() -> None:
    budget = a_budget()
    budget.take_reading(reading(30), own_bytes=31)

    assert budget.others_bytes(HOST) == 0


def test_holders_are_told_by_device() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 10, GPU: 5})
    budget.reserve("b", {HOST: 20})

    assert budget.holders(HOST) == {"a": 10, "b": 20}
    assert budget.holders(GPU) == {"a": 5}
    assert budget.headroom_bytes(HOST) == 10


def test_a_device_that_is_not_usable_has_no_room_until_it_is_again() -> None:
    budget = a_budget()
    facts = DeviceFacts(device=GPU, name="gpu", capacity_bytes=50)
    budget.reserve("a", {GPU: 20})

    budget.see(facts, is_usable=False)
    assert (budget.ceiling_bytes(GPU), budget.fits({GPU: 1})) == (0, False)
    assert budget.held_by("a") == {GPU: 20}

    budget.see(facts)
    assert (budget.capacity_bytes(GPU), budget.free_bytes(GPU)) == (50, 30)


def test_devices_come_and_go_with_what_was_held_there() -> None:
    budget = a_budget()
    budget.reserve("a", {HOST: 10, GPU: 20})
    budget.lose(GPU)
    budget.lose(GPU)
    assert (budget.devices, budget.held_by("a")) == ((HOST,), {HOST: 10})

    late = DeviceFacts(device=DeviceId("GPU-2"), name="late", capacity_bytes=70)
    budget.see(late)

    assert budget.free_bytes(late.device) == 70
