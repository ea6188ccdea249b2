from __future__ import annotations

import numpy as np
import pytest

from ollamad.runners.worker.sampling import candidates
from ollamad.runners.worker.sampling.candidates import Candidates

HALVES = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
"""Weights whose sum is one, exact in binary."""


@pytest.mark.parametrize(
    ("p", "kept"),
    [(-1.0, 1), (0.0, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.8, 3), (0.9375, 4), (0.99, 5)],
)
def test_top_p_keeps_the_fewest_that_reach_its_share(p: float, kept: int) -> None:
    assert candidates.top_p(HALVES, p) == kept
    assert candidates.top_p(HALVES * 3, p) == kept


def test_top_p_of_a_part_says_when_the_part_does_not_suffice() -> None:
    assert candidates.top_p(HALVES[:2], 0.75, total=1.0) == 2
    assert candidates.top_p(HALVES[:2], 0.76, total=1.0) == 3


@pytest.mark.parametrize(
    ("p", "kept"), [(2.0, 1), (1.0, 1), (0.6, 1), (0.49, 2), (0.2, 3), (0.12, 5), (1e-9, 5)]
)
def test_min_p_compares_with_the_likeliest(p: float, kept: int) -> None:
    assert candidates.min_p(np.log(HALVES) + 3, p) == kept


def test_typical_prefers_what_surprises_as_much_as_the_mean() -> None:
    # The mean surprise is 1.875 bits: the second (2 bits) is closest, then the first (1 bit).
    assert candidates.typical(HALVES, 0.2).tolist() == [1]
    assert candidates.typical(HALVES, 0.3).tolist() == [0, 1]
    assert candidates.typical(HALVES, 0.8).tolist() == [0, 1, 2]
    assert candidates.typical(HALVES, 0.9999).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("threshold", "left_out"), [(0.6, 0), (0.5, 0), (0.25, 1), (0.2, 1), (0.1, 2), (0.0, 4)]
)
def test_xtc_leaves_out_all_likely_ones_but_the_last(threshold: float, left_out: int) -> None:
    assert candidates.xtc(HALVES, threshold) == left_out


@pytest.mark.parametrize(
    ("uniform", "place"), [(0.0, 0), (0.499, 0), (0.5, 1), (0.75, 2), (0.93, 3), (1 - 2**-53, 4)]
)
def test_a_draw_takes_the_place_where_the_sum_passes(uniform: float, place: int) -> None:
    assert candidates.drawn(HALVES, uniform) == place


def test_a_draw_never_takes_what_has_no_weight() -> None:
    weights = np.array([0.0, 1.0, 0.0, 1e-300, 0.0])

    assert candidates.drawn(weights, 0.0) == 1
    assert candidates.drawn(weights, 1 - 2**-53) in {1, 3}
    assert candidates.drawn(weights, 1.0) in {1, 3}


def test_candidates_are_cut_from_both_ends() -> None:
    three = Candidates(np.array([4, 2, 9]), np.array([3.0, 2.0, 1.0]))

    assert three.first(2).tokens.tolist() == [4, 2]
    assert three.from_(2).logits.tolist() == [1.0]
    assert three.weights()[0] == 1
