from __future__ import annotations

import pytest

from ollamad.modelinfo import WeightsId
from ollamad.supervisor.healing import (
    SUSPECTS_KEPT,
    SUSPECTS_KEPT_S,
    Fate,
    HealingRecord,
    Part,
    Suspects,
    fingerprint_of,
)

A, S, U = Part.ABSENT, Part.SERVED, Part.UNSERVED


@pytest.mark.parametrize(
    ("deaths", "fate"),
    [
        ([A], Fate.GOES_ON),
        ([S], Fate.GOES_ON),
        ([U], Fate.GOES_ON),
        ([U, U], Fate.BLAMED),
        ([S, U], Fate.BLAMED),
        ([U, S], Fate.GOES_ON),
        ([A, U], Fate.GOES_ON),
        ([A, A], Fate.GOES_ON),
        ([S, S], Fate.GOES_ON),
        ([S, S, S], Fate.SPENT),
        ([A, A, A], Fate.SPENT),
        ([A, U, U], Fate.BLAMED),
        ([S, S, U], Fate.BLAMED),
    ],
    ids=lambda value: "-".join(p.value for p in value) if isinstance(value, list) else value.value,
)
def test_who_was_there_twice_and_got_nothing_is_blamed(deaths: list[Part], fate: Fate) -> None:
    record = HealingRecord()
    fates = [record.judge(part, attempts_max=2) for part in deaths]

    assert fates[-1] is fate
    assert fates[:-1] == [Fate.GOES_ON] * (len(deaths) - 1)


def test_without_attempts_nothing_goes_on() -> None:
    assert HealingRecord().judge(S, attempts_max=0) is Fate.SPENT


@pytest.mark.parametrize(("part", "is_on_trial"), [(A, False), (S, True), (U, True)])
def test_what_a_runner_had_in_hand_goes_on_trial(part: Part, is_on_trial: bool) -> None:
    record = HealingRecord()
    record.judge(part, attempts_max=2)

    assert record.is_on_trial == is_on_trial


def test_a_suspect_is_forgotten_after_its_time() -> None:
    suspects = Suspects()
    assert suspects.are_empty(0)
    suspects.add(b"x", 10)

    assert suspects.refused_for_s(b"x", 11) == SUSPECTS_KEPT_S - 1
    assert suspects.refused_for_s(b"y", 11) == 0
    assert not suspects.are_empty(11)
    assert suspects.refused_for_s(b"x", 10 + SUSPECTS_KEPT_S) == 0
    assert suspects.are_empty(10 + SUSPECTS_KEPT_S)


def test_the_oldest_suspect_makes_room_for_a_new_one() -> None:
    suspects = Suspects()
    for number in range(SUSPECTS_KEPT + 1):
        suspects.add(str(number).encode(), number)

    assert suspects.refused_for_s(b"0", SUSPECTS_KEPT) == 0
    assert suspects.refused_for_s(b"1", SUSPECTS_KEPT) > 0


def test_a_fingerprint_tells_inputs_and_models_apart() -> None:
    llama, qwen = WeightsId("llama"), WeightsId("qwen")
    prints = {
        fingerprint_of(llama, "ab", "c"),
        fingerprint_of(llama, "a", "bc"),
        fingerprint_of(llama, "abc"),
        fingerprint_of(qwen, "abc"),
        fingerprint_of(llama, "\ud800"),
    }

    assert len(prints) == 5
    assert fingerprint_of(llama, "abc") in prints
