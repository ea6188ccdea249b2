from __future__ import annotations

import numpy as np
import pytest

from ollamad.runners.worker.sampling.logprobs import step_logprob
from tests.unit.runners.worker.sampling.values import in_order, softmax, some_logits


def piece(token: int) -> bytes:
    return b"%d" % token


@pytest.mark.parametrize("n_vocab", [5, 100, 50_001])
@pytest.mark.parametrize("n_top", [0, 1, 20])
def test_log_probabilities_are_those_of_the_models_own_distribution(
    n_vocab: int, n_top: int
) -> None:
    logits = some_logits(n_vocab)
    logprobs = np.log(softmax(logits))

    step = step_logprob(logits, 3, n_top, piece)

    assert (step.chosen.token, step.chosen.piece) == (3, b"3")
    assert step.chosen.logprob == pytest.approx(logprobs[3], abs=1e-5)
    likeliest = in_order(logits).tokens[:n_top].tolist()
    assert [top.token for top in step.top] == likeliest
    assert [top.piece for top in step.top] == [piece(token) for token in likeliest]
    assert [top.logprob for top in step.top] == pytest.approx(logprobs[likeliest], abs=1e-5)


def test_a_certain_token_is_not_likelier_than_certain() -> None:
    logits = np.full(1000, -100, dtype=np.float32)
    logits[7] = 100

    assert step_logprob(logits, 7, 1, piece).top[0].logprob == 0


def test_tokens_that_cannot_be_are_not_among_the_likeliest() -> None:
    logits = np.full(1000, -np.inf, dtype=np.float32)
    logits[[5, 6]] = [1, 2]

    assert [top.token for top in step_logprob(logits, 6, 20, piece).top] == [6, 5]
