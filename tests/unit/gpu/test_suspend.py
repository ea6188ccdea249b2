from __future__ import annotations

from ollamad.gpu.suspend import SLEPT_S_MIN, SuspendWatch, system_slept_s


def test_a_machine_that_slept_is_noticed_once() -> None:
    slept_s = 100.0
    watch = SuspendWatch(lambda: slept_s)
    assert not watch.slept()

    slept_s += 3600
    assert watch.slept()
    assert not watch.slept()


def test_the_jitter_of_the_clocks_is_no_sleep() -> None:
    slept_s = 0.0
    watch = SuspendWatch(lambda: slept_s)

    for _ in range(100):
        slept_s += SLEPT_S_MIN / 2
        assert not watch.slept()


def test_the_systems_clocks_can_be_compared() -> None:
    assert system_slept_s() > -SLEPT_S_MIN
