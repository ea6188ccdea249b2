"""`Pool`: all tokens that may be next, of which the best are found without sorting the rest.

A vocabulary has hundreds of thousands of tokens and a sampler looks at some dozens. The tokens are
seen as 64 rows, whose maximum over each column is cheap to have. The n-th largest of these maxima
is a logit that at least n tokens reach, so the n best are in the few columns that reach it too.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from ollamad.runners.worker.sampling import candidates
from ollamad.runners.worker.sampling.candidates import Candidates
from ollamad.runners.worker.sampling.scratch import scratch

_ROWS: Final = 64
_SORTED_WHOLE_MAX: Final = 1024
"""Up to so many tokens, sorting all is faster than looking for the best."""
_NUCLEUS_FIRST: Final = 256
_NUCLEUS_FACTOR: Final = 8
"""How many of the best are tried for a nucleus, and how much wider each next try is."""
_LOWEST: Final = float(np.finfo(np.float32).min)
"""Less is minus infinity: a token that must not be chosen."""


class Pool:
    """Logits, none of them a NaN. They must not change while the pool is used."""

    def __init__(
        self, logits: npt.NDArray[np.float32], tokens: npt.NDArray[np.intp] | None = None
    ) -> None:
        """Take *logits* of *tokens*, which ascend; by default of the whole vocabulary."""
        self.logits: Final = logits
        self._tokens = tokens
        n_columns = len(logits) // _ROWS
        self._split = n_columns * _ROWS
        self._grid = logits[: self._split].reshape(_ROWS, n_columns)
        self._maxima = self._grid.max(axis=0) if n_columns else logits[:0]
        self._rest = logits[self._split :]
        peaks = [part.max() for part in (self._maxima, self._rest) if len(part)]
        self.peak: Final = float(peaks[0] if len(peaks) == 1 else np.maximum(*peaks))
        """The largest logit; a NaN if there is one."""

    def best(self, count: int) -> Candidates:
        """Return the *count* best tokens, or all if there are fewer."""
        if count >= len(self.logits) or len(self.logits) <= _SORTED_WHOLE_MAX:
            return self.everything().first(count)
        seen = self._maxima if count <= len(self._maxima) else self.logits
        place = len(seen) - count
        return self.above(float(np.partition(seen, place)[place])).first(count)

    def above(self, bound: float) -> Candidates:
        """Return the tokens whose logit is *bound* at least."""
        bound = max(bound, _LOWEST)
        columns = np.flatnonzero(self._maxima >= bound)
        # Rows first, and columns ascending in each: the places ascend, so a stable sort is all it
        # takes to have the lower of equal tokens first.
        grid = self._grid.take(columns, axis=1)
        found = np.flatnonzero(grid >= bound)
        row, column = np.divmod(found, max(len(columns), 1))
        places = row * len(self._maxima) + columns[column]
        logits = grid.ravel()[found]
        if len(self._rest):
            more = np.flatnonzero(self._rest >= bound)
            places = np.concatenate((places, more + self._split))
            logits = np.concatenate((logits, self._rest[more]))
        order = (-logits).argsort(kind="stable")
        return Candidates(self._named(places[order]), logits[order].astype(np.float64))

    def everything(self) -> Candidates:
        """Return all tokens that may be chosen."""
        return self.above(_LOWEST)

    def nucleus(self, p: float) -> Candidates:
        """Return the fewest best tokens that have at least *p* of all probability."""
        count = _NUCLEUS_FIRST
        while count < len(self.logits):
            best = self.best(count)
            n_kept = candidates.top_p(best.weights(), p, self.total)
            if n_kept <= len(best.tokens):
                return best.first(n_kept)
            count *= _NUCLEUS_FACTOR
        everything = self.everything()
        return everything.first(candidates.top_p(everything.weights(), p))

    def weights(self, temperature: float = 1.0) -> npt.NDArray[np.float32]:
        """Return probabilities of all tokens as multiples of the likeliest's.

        They are good until the next call.
        """
        weights = scratch("weights", len(self.logits))
        np.subtract(self.logits, np.float32(self.peak), out=weights)
        if temperature != 1.0:
            # A low temperature may take the unlikeliest to minus infinity, where they belong.
            with np.errstate(over="ignore"):
                weights *= np.float32(1.0 / temperature)
        np.exp(weights, out=weights)
        return weights

    @functools.cached_property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.weights().sum())

    def sigma(self) -> float:
        """Return the standard deviation of the logits that may be chosen."""
        logits = self.logits
        mean = logits.mean()
        if not np.isfinite(mean):
            logits = logits[logits >= _LOWEST]
            mean = logits.mean()
        apart = np.subtract(logits, mean, out=scratch("weights", len(logits)))
        # Not a dot product: BLAS would wake threads for it, which the model computes with.
        np.multiply(apart, apart, out=apart)
        return float(np.sqrt(apart.mean()))

    def without(self, best: Candidates) -> Pool:
        """Return a pool that lacks these tokens."""
        logits = self.logits.copy()
        tokens = best.tokens
        places = tokens if self._tokens is None else self._tokens.searchsorted(tokens)
        logits[places] = -np.inf
        return Pool(logits, self._tokens)

    def drawn(self, temperature: float, uniform: float) -> int:
        """Return a token drawn by the probability of each at *temperature*.

        In two steps, first a row and then a token of it: to sum up a whole vocabulary one by one
        takes longer than all the rest.
        """
        weights = self.weights(temperature)
        if not len(self._maxima):
            return self._name(candidates.drawn(weights, uniform))
        rest = weights[self._split :]
        grid = weights[: self._split].reshape(self._grid.shape)
        sums = np.append(grid.sum(axis=1, dtype=np.float32), rest.sum()).astype(np.float64)
        row = candidates.drawn(sums, uniform)
        # What *uniform* reaches into the row's own part is uniform again.
        before = sums[:row].sum()
        inside = min(max((uniform * sums.sum() - before) / sums[row], 0.0), _UNDER_ONE)
        part = grid[row] if row < _ROWS else rest
        return self._name(row * len(self._maxima) + candidates.drawn(part, inside))

    def _named(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return places if self._tokens is None else self._tokens[places]

    def _name(self, place: int) -> int:
        return place if self._tokens is None else int(self._tokens[place])


_UNDER_ONE: Final = 1.0 - 2.0**-53
