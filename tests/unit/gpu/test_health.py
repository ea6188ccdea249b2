from __future__ import annotations

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.gpu.devices import USABLE, DeviceHealth, DeviceId
from ollamad.gpu.health import (
    APPLICATION_XIDS,
    FAULTY_XIDS,
    NOTE_PERIOD_S,
    RECORDS_MAX,
    RELAPSE_FACTOR_MAX,
    RELAPSE_MEMORY_S,
    TRANSITIONS,
    HealthBook,
    HealthEvent,
    HealthNews,
    HealthRules,
    advance,
)
from ollamad.gpu.probe import GpuEvent, GpuEventKind
from tests.fakes.gpus import FakeGpu, FakeGpus, FakeInstance, GpuWorld

H = DeviceHealth
A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
RULES = HealthRules(quarantine_s=30, recovery_s=300, suspicion_s=600)


class Watched:
    """A book, and the world that it is told of."""

    def __init__(self, *gpus: FakeGpu) -> None:
        self.world = GpuWorld(gpus=list(gpus) or [FakeGpu(A), FakeGpu(B)])
        self.book = HealthBook(RULES)
        self._probe = FakeGpus(self.world)
        self.look(0)

    def look(self, now: float, *, anew: bool = False) -> list[HealthNews]:
        return self.book.observe(self._probe.read(anew=anew), now)

    def xid(
        self, number: int, now: float = 0, device: DeviceId = A, instance: DeviceId | None = None
    ) -> list[HealthNews]:
        event = GpuEvent(kind=GpuEventKind.XID, device=device, instance=instance, xid=number)
        return self.book.take(event, now)

    def health(self, device: DeviceId = A, parent: DeviceId | None = None) -> DeviceHealth:
        return self.book.health(device, parent)[0]

    def why(self, device: DeviceId = A) -> str:
        return self.book.health(device)[1]


def test_every_health_has_a_row_and_takes_faults_doubts_and_resets() -> None:
    assert set(TRANSITIONS) == set(H)
    for row in TRANSITIONS.values():
        assert row[HealthEvent.FAULT] is H.QUARANTINED
        assert row[HealthEvent.RESET] is H.HEALTHY
        assert HealthEvent.DOUBT in row


def test_what_the_table_does_not_have_is_a_bug() -> None:
    with pytest.raises(ProtocolBroken):
        advance(H.HEALTHY, HealthEvent.SEEN_WELL)


def test_nothing_but_a_reset_leads_from_quarantine_straight_back_to_work() -> None:
    for event, after in TRANSITIONS[H.QUARANTINED].items():
        assert after not in USABLE or event is HealthEvent.RESET


@pytest.mark.parametrize("xid", sorted(FAULTY_XIDS))
def test_a_faulty_gpu_is_quarantined_and_no_other(xid: int) -> None:
    watched = Watched()

    [news] = watched.xid(xid)

    assert (news.device, news.before, news.after) == (A, H.HEALTHY, H.QUARANTINED)
    assert news.is_change
    assert f"Xid {xid}" in watched.why()
    assert watched.health(B) is H.HEALTHY


@pytest.mark.parametrize("xid", sorted(APPLICATION_XIDS))
def test_what_programs_do_is_noted_and_held_against_no_gpu(xid: int) -> None:
    watched = Watched()

    [news] = watched.xid(xid)

    assert not news.is_change
    assert watched.health() is H.HEALTHY
    assert f"Xid {xid}" in watched.book.records()[A].last_note


def test_programs_that_fail_all_the_time_are_noted_now_and_then() -> None:
    watched = Watched()

    lines = [now for now in range(150) if watched.xid(31, now)]

    assert lines == [0, NOTE_PERIOD_S, 2 * NOTE_PERIOD_S]


def test_an_unknown_xid_makes_a_gpu_suspect_which_is_still_used() -> None:
    watched = Watched()

    watched.xid(999)

    assert watched.health() is H.SUSPECT
    assert watched.health() in USABLE


def test_suspicion_ends_when_nothing_more_happens() -> None:
    watched = Watched()
    watched.xid(999, now=0)
    watched.xid(999, now=100)

    watched.look(699)
    assert watched.health() is H.SUSPECT
    watched.look(700)
    assert watched.health() is H.HEALTHY
    assert watched.why() == ""


@pytest.mark.parametrize(
    ("kind", "health"),
    [(GpuEventKind.ECC_SINGLE, H.SUSPECT), (GpuEventKind.ECC_DOUBLE, H.QUARANTINED)],
)
def test_memory_errors_count_by_whether_they_did_harm(
    kind: GpuEventKind, health: DeviceHealth
) -> None:
    watched = Watched()

    watched.book.take(GpuEvent(kind=kind, device=A), 0)

    assert watched.health() is health


def test_memory_errors_that_nobody_reported_are_seen_by_their_number() -> None:
    gpu = FakeGpu(A, uncorrected=5)
    watched = Watched(gpu)
    assert watched.health() is H.HEALTHY  # They are from before.

    gpu.uncorrected = 7
    watched.look(2)

    assert watched.health() is H.QUARANTINED
    assert "2 uncorrectable" in watched.why()


def test_a_counter_that_starts_anew_is_no_error() -> None:
    gpu = FakeGpu(A, uncorrected=5)
    watched = Watched(gpu)

    gpu.uncorrected = 0
    watched.look(2)

    assert watched.health() is H.HEALTHY


@pytest.mark.parametrize(
    ("temperature_c", "health"),
    [(86, H.HEALTHY), (87, H.SUSPECT), (89, H.SUSPECT), (90, H.QUARANTINED), (92, H.QUARANTINED)],
)
def test_heat_is_judged_by_the_gpus_own_limits(temperature_c: int, health: DeviceHealth) -> None:
    watched = Watched(FakeGpu(A, temperature_c=temperature_c, slowdown_c=87, shutdown_c=92))

    assert watched.health() is health


def test_a_gpu_that_tells_no_limits_is_not_judged_by_its_heat() -> None:
    watched = Watched(FakeGpu(A, temperature_c=120, slowdown_c=None, shutdown_c=None))

    assert watched.health() is H.HEALTHY


def test_a_quarantined_gpu_is_watched_before_it_is_trusted() -> None:
    watched = Watched()
    watched.xid(48, now=0)

    healths = {}
    for now in range(2, 400, 2):
        for news in watched.look(now):
            healths[now] = news.after

    assert healths == {30: H.RECOVERING, 330: H.HEALTHY}


def test_a_doubt_while_recovering_is_a_fault() -> None:
    watched = Watched()
    watched.xid(48, now=0)
    watched.look(30)

    watched.xid(999, now=31)

    assert watched.health() is H.QUARANTINED


def test_one_fault_that_is_reported_twice_counts_once() -> None:
    watched = Watched()

    watched.xid(48, now=0)
    assert watched.book.take(GpuEvent(kind=GpuEventKind.ECC_DOUBLE, device=A), 1) == []

    assert watched.book.records()[A].n_faults == 1
    assert "Xid 48" in watched.why()


def recovery_s(watched: Watched, now: float) -> float:
    """Have a GPU fail, and return how long it recovers."""
    watched.xid(48, now=now)
    watched.look(now + 30)
    assert watched.health() is H.RECOVERING
    after_s = 0.0
    while watched.health() is not H.HEALTHY:
        after_s += 10
        watched.look(now + 30 + after_s)
    return after_s


def test_a_gpu_that_fails_again_is_watched_twice_as_long_up_to_a_limit() -> None:
    watched = Watched()

    times = [recovery_s(watched, now=10_000 * again) for again in range(6)]

    assert times == [300, 600, 1200, 2400, 4800, 300 * RELAPSE_FACTOR_MAX]


def test_faults_are_forgotten_after_a_day_without() -> None:
    watched = Watched()
    recovery_s(watched, now=0)

    watched.look(RELAPSE_MEMORY_S)

    assert recovery_s(watched, now=RELAPSE_MEMORY_S + 1) == 300


def test_a_gpu_off_the_bus_is_not_believed_before_the_bus_was_looked_at_anew() -> None:
    watched = Watched()
    watched.xid(79, now=0)

    watched.look(1000)
    assert watched.health() is H.QUARANTINED
    assert watched.book.wants_new_session

    watched.look(1002, anew=True)
    assert watched.health() is H.RECOVERING
    assert not watched.book.wants_new_session


def test_a_gpu_that_is_gone_is_quarantined_until_it_is_seen_again() -> None:
    watched = Watched()
    watched.world.gpus[0].error = 15

    [news] = watched.look(2)
    assert (news.device, news.after) == (A, H.QUARANTINED)
    assert "lost" in news.why
    assert watched.look(500) == []
    assert watched.book.wants_new_session

    watched.world.gpus[0].error = 0
    assert watched.look(502) == []
    assert not watched.book.wants_new_session
    [news] = watched.look(530)
    assert news.after is H.RECOVERING


def test_a_reset_brings_a_gpu_back_at_once() -> None:
    watched = Watched()
    watched.xid(79, now=0)

    [news] = watched.book.reset(A, now=5)

    assert news.after is H.HEALTHY
    assert watched.health() is H.HEALTHY
    assert not watched.book.wants_new_session
    assert recovery_s(watched, now=10) == 300


def test_a_reset_does_not_heal_a_gpu_that_is_still_lost() -> None:
    watched = Watched()
    watched.world.gpus[0].error = 15
    watched.look(2)

    watched.book.reset(A, now=5)
    watched.look(6)

    assert watched.health() is H.QUARANTINED


def a_divided_gpu() -> tuple[FakeGpu, DeviceId, DeviceId]:
    instances = [FakeInstance("MIG-a", gi=1), FakeInstance("MIG-b", gi=2)]
    gpu = FakeGpu(A, is_divided=True, instances=instances)
    return gpu, DeviceId("MIG-a"), DeviceId("MIG-b")


def test_an_instance_is_no_better_than_its_gpu() -> None:
    gpu, first, second = a_divided_gpu()
    watched = Watched(gpu)

    watched.xid(48, instance=first)

    assert watched.health(first, parent=A) is H.QUARANTINED
    assert watched.health(second, parent=A) is H.QUARANTINED


def test_a_contained_error_stays_within_its_instance() -> None:
    gpu, first, second = a_divided_gpu()
    watched = Watched(gpu)

    watched.xid(94, instance=first)

    assert watched.health(first, parent=A) is H.QUARANTINED
    assert watched.health(second, parent=A) is H.HEALTHY


def test_who_vouches_for_an_instance_vouches_for_its_gpu_and_the_other_way_round() -> None:
    gpu, first, second = a_divided_gpu()
    watched = Watched(gpu)

    watched.xid(48, instance=first)
    watched.book.reset(second, now=1)
    assert watched.health(first, parent=A) is H.HEALTHY

    watched.xid(94, instance=first)
    watched.book.reset(A, now=2)
    assert watched.health(first, parent=A) is H.HEALTHY


def test_a_device_that_nobody_has_seen_is_not_entered_by_a_reset() -> None:
    watched = Watched()

    assert watched.book.reset(DeviceId("GPU-c"), now=1) == []
    assert DeviceId("GPU-c") not in watched.book.records()


def test_an_instance_that_is_taken_apart_is_nobodys_fault() -> None:
    gpu, first, _ = a_divided_gpu()
    watched = Watched(gpu)

    del gpu.instances[0]

    assert watched.look(2) == []
    assert first not in watched.book.records()
    assert not watched.book.wants_new_session


def test_the_book_remembers_a_bounded_number_of_devices() -> None:
    watched = Watched(FakeGpu(A))
    for number in range(RECORDS_MAX + 10):
        watched.xid(31, now=1 + number, device=DeviceId(f"GPU-{number}"))

    records = watched.book.records()

    assert len(records) == RECORDS_MAX
    assert A not in records
    assert DeviceId(f"GPU-{RECORDS_MAX + 9}") in records
