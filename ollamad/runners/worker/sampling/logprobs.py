"""Log-probabilities of what was chosen, and of what could have been."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ollamad.runners.protocol import StepLogprob, TokenLogprob
from ollamad.runners.worker.sampling.pool import Pool


def step_logprob(
    logits: npt.NDArray[np.float32], chosen: int, n_top: int, pieces: Callable[[int], bytes]
) -> StepLogprob:
    """Return the log-probability of *chosen* and of the *n_top* likeliest tokens.

    Probabilities are the model's own (softmax over all logits), before any sampler.
    *pieces* gives a token's bytes.
    """
    pool = Pool(logits)
    log_sum = pool.peak + math.log(pool.total)

    def of(token: int, logit: float) -> TokenLogprob:
        # Rounding must not make a certain token likelier than certain.
        return TokenLogprob(token, pieces(token), min(logit - log_sum, 0.0))

    top: tuple[TokenLogprob, ...] = ()
    if n_top > 0:
        best = pool.best(n_top)
        top = tuple(map(of, best.tokens.tolist(), best.logits.tolist()))
    return StepLogprob(of(chosen, float(logits[chosen])), top)
