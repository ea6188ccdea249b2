"""Mirostat: keeps the surprise of an answer at a target, instead of cutting at fixed values.

It takes the place of all rules that truncate. Biases and penalties still apply before it, which
llama.cpp's own chain leaves out: who asks for both should get both.

Its one number of state, `mu`, is the surprise it tolerates. It is not sent to another runner: where
a stream is continued there, `mu` starts anew and the answer may differ from there on.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling import candidates
from ollamad.runners.worker.sampling.pool import Pool

_SEEN: Final = 100
"""The likeliest tokens from which version 1 estimates how steeply probability falls."""
_STEPS: Final = np.log(np.arange(2, _SEEN + 1) / np.arange(1, _SEEN))


class Mirostat:
    """Chooses tokens and learns from those that were taken. Versions 1 and 2."""

    def __init__(self, options: SamplingOptions, n_vocab: int) -> None:
        self._version = options.mirostat
        self._tau = options.mirostat_tau
        self._eta = options.mirostat_eta
        self._n_vocab = n_vocab
        self.mu = 2 * options.mirostat_tau
        """Bits of surprise a token may have."""
        self._pending: tuple[int, float] | None = None

    def choose(self, pool: Pool, temperature: float, uniform: float) -> int:
        """Return the token that *uniform* draws. Nothing is learned before it is accepted."""
        kept = (
            self._kept_1(pool, temperature)
            if self._version == 1
            else self._kept_2(pool, temperature)
        )
        weights = np.exp((kept.logits - kept.logits[0]) / temperature)
        place = candidates.drawn(weights, uniform)
        token = int(kept.tokens[place])
        self._pending = token, -math.log2(weights[place] / weights.sum())
        return token

    def accept(self, token: int) -> None:
        """Learn from *token* if it was chosen here; one that a grammar forced surprises nobody."""
        if self._pending is not None and self._pending[0] == token:
            self.mu -= self._eta * (self._pending[1] - self._tau)
        self._pending = None

    def _kept_1(self, pool: Pool, temperature: float) -> candidates.Candidates:
        seen = pool.best(_SEEN)
        falls = (seen.logits[:-1] - seen.logits[1:]) / temperature
        steps = _STEPS[: len(falls)]
        steepness = float(steps @ falls / (steps @ steps)) if len(falls) else math.inf
        count = self._count(steepness)
        return seen.first(count) if count <= len(seen.tokens) else pool.best(count)

    def _count(self, steepness: float) -> int:
        """Return how many tokens are at most as surprising as `mu` in a Zipf distribution."""
        beyond = steepness - 1 or 1e-9  # At exactly 1 the formula has no value, but a limit.
        try:
            share = 1 - self._n_vocab**-beyond
            count = (beyond * 2**self.mu / share) ** (1 / steepness)
        except (OverflowError, ZeroDivisionError):
            return self._n_vocab if steepness < 1 else 1
        # A root of a negative number is complex, and not a number at all is not greater than 1.
        if isinstance(count, complex) or not count > 1:
            return 1
        return int(min(count, self._n_vocab))

    def _kept_2(self, pool: Pool, temperature: float) -> candidates.Candidates:
        total = float(pool.weights(temperature).sum())
        bound = pool.peak - temperature * (self.mu * math.log(2) - math.log(total))
        # The likeliest stays, however surprising it is.
        return pool.above(min(bound, pool.peak))
