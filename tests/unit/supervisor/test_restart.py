from __future__ import annotations

import math

import pytest

from ollamad.supervisor.restart import FailureHistory, RestartPolicy


def a_policy(
    *,
    failures_max: int = 3,
    window_s: float = 120,
    cooling_s: float = 30,
    delay_s: float = 1,
    delay_max_s: float = 5,
) -> RestartPolicy:
    return RestartPolicy(
        failures_max=failures_max,
        window_s=window_s,
        cooling_s=cooling_s,
        delay_s=delay_s,
        delay_max_s=delay_max_s,
    )


POLICY = a_policy()


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
    policy = a_policy(failures_max=2, window_s=10, cooling_s=300)
    history = a_history(0, 1, policy=policy)

    assert history.cooling_until(200) == 301
    assert not history.is_forgotten(200)
    assert history.cooling_until(301) is None
    assert history.is_forgotten(301)


def test_with_a_limit_of_one_every_failure_cools() -> None:
    policy = a_policy(failures_max=1)

    assert a_history(5, policy=policy).cooling_until(5) == 35


@pytest.mark.parametrize(("now", "is_forgotten"), [(0, False), (119.9, False), (120, True)])
def test_a_failure_is_forgotten_when_the_window_has_passed(now: float, is_forgotten: bool) -> None:
    assert a_history(0).is_forgotten(now) is is_forgotten


def test_the_last_reason_is_the_newest() -> None:
    assert a_history(0, 1).last_reason == "failed at 1"


def test_a_history_does_not_grow_with_the_years() -> None:
    history = a_history(*range(0, 10_000, 50))

    assert len(history.failed_at) == 3


@pytest.mark.parametrize(("n_failures", "delay_s"), [(2, 1), (3, 2), (4, 4), (5, 5), (100, 5)])
def test_each_further_failure_doubles_the_delay_up_to_a_maximum(
    n_failures: int, delay_s: float
) -> None:
    history = a_history(*[7] * n_failures, policy=a_policy(failures_max=1000))

    assert history.put_off_until == 7 + delay_s


def test_the_first_failure_is_forgiven_at_once() -> None:
    assert a_history(7).put_off_until <= 7


def test_delays_do_not_overflow() -> None:
    policy = a_policy(failures_max=1000, delay_s=1e300, delay_max_s=5)

    assert a_history(*[7] * 999, policy=policy).put_off_until == 12


def test_what_a_request_is_blamed_for_is_forgotten() -> None:
    history = a_history(0, 1, 2)
    history.forgive(2, 3)

    assert history.failed_at == [0]
    assert history.cooling_until(3) is None
    assert history.put_off_until == -math.inf
    assert not history.is_forgotten(3)
    assert history.is_forgotten(3 + POLICY.window_s)


def test_when_many_requests_are_blamed_the_model_cools() -> None:
    history = FailureHistory(POLICY)
    for at in range(POLICY.failures_max):
        assert history.cooling_until(at) is None
        history.record("died", at)
        history.record("died", at)
        history.forgive(2, at)

    assert history.cooling_until(2) == 2 + POLICY.cooling_s
