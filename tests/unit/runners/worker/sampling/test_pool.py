from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.worker.sampling import candidates, pool
from ollamad.runners.worker.sampling.pool import Pool
from tests.unit.runners.worker.sampling.values import in_order, softmax, some_logits

SIZES = [1, 2, 63, 64, 65, 1000, 1025, 5000, 20_001]


@st.composite
def any_logits(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    """Logits with many equals among them, and some that must not be chosen."""
    size = draw(st.sampled_from(SIZES))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = chance.integers(-20, draw(st.integers(-19, 2000)), size) / 4
    logits[chance.random(size) < draw(st.sampled_from([0.0, 0.1, 0.9]))] = -np.inf
    logits[chance.integers(size)] = draw(st.sampled_from([0.0, 30.0, -5.0]))
    return logits.astype(np.float32)


@given(logits=any_logits(), count=st.sampled_from([1, 2, 40, 300, 5000, 2**32]))
def test_the_best_are_those_of_a_plain_sort(logits: npt.NDArray[np.float32], count: int) -> None:
    everything = in_order(logits)
    n_finite = int(np.isfinite(logits).sum())

    best = Pool(logits).best(count)

    assert best.tokens.tolist() == everything.tokens[: min(count, n_finite)].tolist()
    assert best.logits.tolist() == everything.logits[: min(count, n_finite)].tolist()


@given(logits=any_logits(), bound=st.integers(-30, 510).map(lambda quarter: quarter / 4))
def test_those_above_a_bound_are_those_of_a_plain_sort(
    logits: npt.NDArray[np.float32], bound: float
) -> None:
    everything = in_order(logits)

    above = Pool(logits).above(bound)

    assert above.tokens.tolist() == everything.tokens[everything.logits >= bound].tolist()


@given(logits=any_logits(), p=st.sampled_from([0.1, 0.5, 0.9, 0.999, 0.9999999]))
def test_a_nucleus_is_the_one_of_a_plain_sort(logits: npt.NDArray[np.float32], p: float) -> None:
    everything = Pool(logits).everything()
    exact = candidates.top_p(everything.weights(), p)

    found = Pool(logits).nucleus(p)

    share = everything.weights()[: len(found.tokens)].sum() / everything.weights().sum()
    assert found.tokens.tolist() == everything.tokens[: len(found.tokens)].tolist()
    # Sums of thousands of equal weights may differ in their last digits.
    assert len(found.tokens) == exact or share == pytest.approx(p, abs=1e-6)


def test_a_nucleus_widens_until_it_has_its_share() -> None:
    flat = np.linspace(1, 0, 50_000, dtype=np.float32)

    assert len(Pool(flat).nucleus(0.001).tokens) < 256
    assert len(Pool(flat).nucleus(0.03).tokens) == pytest.approx(950, abs=10)
    assert len(Pool(flat).nucleus(0.9).tokens) == pytest.approx(42_000, rel=0.05)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", [0, -1])
def test_a_number_that_is_none_is_found_wherever_it_is(size: int, place: int) -> None:
    logits = some_logits(size)
    logits[place] = np.nan

    assert math.isnan(Pool(logits).peak)


@pytest.mark.parametrize("size", SIZES)
def test_a_pool_of_some_tokens_names_them_as_the_vocabulary_does(size: int) -> None:
    logits = some_logits(3 * size)
    tokens = np.arange(1, 3 * size, 3)

    some = Pool(logits[tokens], tokens)

    assert set(some.best(5).tokens) <= set(tokens.tolist())
    assert logits[some.best(1).tokens[0]] == logits[tokens].max()
    assert some.drawn(1.0, 0.5) in tokens
    if size > 1:
        less = some.without(some.best(1))
        assert less.best(1).tokens[0] == some.best(2).tokens[1]
        assert less.drawn(1.0, 0.0) != some.best(1).tokens[0]


@pytest.mark.parametrize("size", [3, 64, 100, 5001])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_a_draw_from_all_follows_the_distribution(size: int, temperature: float) -> None:
    logits = np.random.default_rng(size).normal(0, 2, size).astype(np.float32)
    expected = softmax(logits / np.float32(temperature))
    one = Pool(logits)

    # An even grid of numbers gives each token its share, to the width of the grid.
    n_draws = 4000
    uniforms = (np.arange(n_draws) + 0.5) / n_draws
    drawn = np.bincount([one.drawn(temperature, u) for u in uniforms], minlength=size)

    assert np.abs(drawn / n_draws - expected).max() < 2 / n_draws


@pytest.mark.parametrize("uniform", [0.0, 0.25, 1 - 2**-53])
@pytest.mark.parametrize("temperature", [1e-7, 1.0, 4e9])
def test_a_draw_never_takes_what_is_forbidden(uniform: float, temperature: float) -> None:
    logits = np.full(5003, -np.inf, dtype=np.float32)
    allowed = [1, 77, 4000, 5000]
    logits[allowed] = [1, 2, 3, 4]

    assert Pool(logits).drawn(temperature, uniform) in allowed


def test_the_spread_is_that_of_the_tokens_that_may_be_chosen() -> None:
    logits = some_logits(5003)
    sigma = float(logits.std())
    assert Pool(logits).sigma() == pytest.approx(sigma, rel=1e-5)

    forbidden = np.concatenate([logits, np.full(700, -np.inf, dtype=np.float32)])

    assert Pool(forbidden).sigma() == pytest.approx(sigma, rel=1e-5)


def test_weights_of_several_pools_do_not_mix() -> None:
    first, second = some_logits(5000, 1), some_logits(5000, 2)

    totals = [Pool(first).total, Pool(second).total, Pool(first).total]

    assert totals[0] == totals[2] != totals[1]
    assert totals[0] == pytest.approx(1 / softmax(first).max(), rel=1e-5)
    assert pool.Pool(second).total == pytest.approx(1 / softmax(second).max(), rel=1e-5)
