from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.worker.sampling.chance import Chance, Purpose

SEEDS = st.integers(-(2**31), 2**64)
POSITIONS = st.integers(0, 2**31)


@given(seed=SEEDS, position=POSITIONS, purpose=st.sampled_from(Purpose))
def test_a_number_is_in_the_unit_interval_and_always_the_same(
    seed: int, position: int, purpose: Purpose
) -> None:
    number = Chance(seed).uniform(position, purpose)

    assert 0 <= number < 1
    assert number == Chance(seed).uniform(position, purpose)


@given(seed=SEEDS, position=POSITIONS)
def test_purposes_neighbours_and_seeds_have_numbers_of_their_own(seed: int, position: int) -> None:
    chance, other = Chance(seed), Chance(seed + 1)

    numbers = {
        chance.uniform(position, Purpose.DRAW),
        chance.uniform(position, Purpose.XTC),
        chance.uniform(position + 1, Purpose.DRAW),
        other.uniform(position, Purpose.DRAW),
    }

    assert len(numbers) == 4


def test_numbers_never_change_between_versions() -> None:
    """A stream may be continued by a runner of a newer version."""
    assert Chance(42).uniform(0, Purpose.DRAW) == 0.7129353372857994
    assert Chance(42 + 2**64).uniform(0, Purpose.DRAW) == 0.7129353372857994


def test_numbers_are_spread_evenly_over_positions_and_over_seeds() -> None:
    by_position = [Chance(7).uniform(position, Purpose.DRAW) for position in range(20_000)]
    by_seed = [Chance(seed).uniform(7, Purpose.DRAW) for seed in range(20_000)]

    for numbers in (by_position, by_seed):
        counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
        assert ((counts - 200.0) ** 2 / 200).sum() < 150  # 99 degrees of freedom: p < 0.001
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.025
    assert abs(np.corrcoef(by_position, by_seed)[0, 1]) < 0.025
