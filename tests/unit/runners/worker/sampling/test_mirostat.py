from __future__ import annotations

import numpy as np
import pytest

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.chance import Chance, Purpose
from ollamad.runners.worker.sampling.mirostat import Mirostat
from ollamad.runners.worker.sampling.pool import Pool
from tests.unit.runners.worker.sampling.values import some_logits

N_VOCAB = 5000


def a_mirostat(version: int, **options: float) -> Mirostat:
    return Mirostat(SamplingOptions(mirostat=version, **options), N_VOCAB)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_the_surprise_of_an_answer_comes_to_the_target(version: int, tau: float) -> None:
    mirostat = a_mirostat(version, mirostat_tau=tau)
    chance = Chance(1)
    surprises = []
    for position in range(600):
        logits = np.random.default_rng(position).normal(0, 2.5, N_VOCAB).astype(np.float32)
        token = mirostat.choose(Pool(logits), 1.0, chance.uniform(position, Purpose.DRAW))
        assert mirostat._pending is not None
        surprises.append(mirostat._pending[1])
        mirostat.accept(token)

    assert np.mean(surprises[100:]) == pytest.approx(tau, abs=0.1)


@pytest.mark.parametrize("version", [1, 2])
def test_nothing_is_learned_but_from_the_token_that_was_chosen(version: int) -> None:
    mirostat = a_mirostat(version)
    pool = Pool(some_logits(N_VOCAB))
    before = mirostat.mu

    first, second = mirostat.choose(pool, 1.0, 0.5), mirostat.choose(pool, 1.0, 0.5)
    assert first == second
    assert mirostat.mu == before

    mirostat.accept(first + 1)
    assert mirostat.mu == before

    mirostat.choose(pool, 1.0, 0.5)
    mirostat.accept(first)
    learned = mirostat.mu
    mirostat.accept(first)
    assert mirostat.mu == learned != before


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mu", [-1e6, -1.0, 0.0, 1.0, 100.0, 1e6])
@pytest.mark.parametrize("temperature", [1e-7, 1.0, 4e9])
@pytest.mark.parametrize(
    "logits",
    [
        np.zeros(N_VOCAB, dtype=np.float32),
        np.log(1 / np.arange(1, N_VOCAB + 1)).astype(np.float32),
        np.array([0.0, *[-np.inf] * 99], dtype=np.float32),
        some_logits(N_VOCAB),
    ],
    ids=["flat", "zipf", "certain", "usual"],
)
def test_no_state_is_too_wild_to_choose_from(
    version: int,
    mu: float,
    temperature: float,
    logits: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> None:
    mirostat = a_mirostat(version)
    mirostat.mu = mu

    token = mirostat.choose(Pool(logits), temperature, 0.99)
    mirostat.accept(token)

    assert np.isfinite(logits[token])
    assert np.isfinite(mirostat.mu)
