from __future__ import annotations

import pytest

from ollamad.supervisor.restart import FailureHistory, RestartPolicy

POLICY = RestartPolicy(failures_max=3, window_s=120, cooling_s=30)


def a_history(*failed_at: float, policy: RestartPolicy = POLICY) -> FailureHistory:
    history = FailureHistory(policy)
    for at in failed_at:
        history.record(f"failed at {at}", at)
    return history


@pytest.mark.parametrize(
    ("failed_at", "now", "cools_until"),
    [
        ([], 0, None),
        ([0, 1], 1, None),
        ([0, 1, 2], 2, 32),
        ([0, 1, 2], 31.9, 32),
        ([0, 1, 2], 32, None),
        ([0, 1, 2, 40], 40, 70),
        ([0, 1, 121], 121, None),
        ([0, 60, 119], 119, 149),
        ([0, 60, 119], 121, 149),
    ],
    ids=[
        "never", "forgiven", "too-many", "still-cooling", "over", "once-more",
        "the-window-forgets", "at-the-windows-edge", "the-window-ends-while-cooling",
    ],
)  # fmt: skip
def test_too_many_failures_within_the_window_cool(
    failed_at: list[float], now: float, cools_until: float | None
) -> None:
    assert a_history(*failed_at).cooling_until(now) == cools_until


def test_a_cooling_longer_than_the_window_is_kept_to_its_end() -> None:
    policy = RestartPolicy(failures_max=2, window_s=10, cooling_s=300)
    history = a_history(0, 1, policy=policy)

    assert history.cooling_until(200) == 301
    assert not history.is_forgotten(200)
    assert history.cooling_until(301) is None
    assert history.is_forgotten(301)


def test_with_a_limit_of_one_every_failure_cools() -> None:
    policy = RestartPolicy(failures_max=1, window_s=120, cooling_s=30)

    assert a_history(5, policy=policy).cooling_until(5) == 35


@pytest.mark.parametrize(("now", "is_forgotten"), [(0, False), (119.9, False), (120, True)])
def test_a_failure_is_forgotten_when_the_window_has_passed(now: float, is_forgotten: bool) -> None:
    assert a_history(0).is_forgotten(now) is is_forgotten


def test_the_last_reason_is_the_newest() -> None:
    assert a_history(0, 1).last_reason == "failed at 1"


def test_a_history_does_not_grow_with_the_years() -> None:
    history = a_history(*range(0, 10_000, 50))

    assert len(history.failed_at) == 3
