from __future__ import annotations

from ollamad.admin.meter import WINDOW_S, TokenMeter


def test_rates_are_of_the_last_seconds() -> None:
    meter = TokenMeter()
    for second in range(20):
        meter.take(second, {1: 10 * second})
    assert meter.tokens_per_s(1) == 10

    for second in range(20, 20 + int(WINDOW_S) + 1):
        meter.take(second, {1: 190})
    assert meter.tokens_per_s(1) == 0
    assert meter.generated_tokens == 190


def test_the_total_outlives_the_runners_that_made_it() -> None:
    meter = TokenMeter()
    meter.take(0, {})
    meter.take(1, {1: 30})
    meter.take(2, {1: 40, 2: 5})
    meter.take(3, {2: 5})

    assert meter.generated_tokens == 45
    assert meter.tokens_per_s(1) == 0
    assert meter.total_tokens_per_s() == 5 / 3


def test_what_nobody_measured_has_no_speed() -> None:
    meter = TokenMeter()
    assert meter.tokens_per_s(1) == meter.total_tokens_per_s() == 0

    meter.take(0, {1: 100})
    assert meter.tokens_per_s(1) == 0


def test_samples_do_not_pile_up() -> None:
    meter = TokenMeter()
    for tick in range(10_000):
        meter.take(tick / 10, {1: tick})

    assert len(meter._samples) <= WINDOW_S * 10 + 2
