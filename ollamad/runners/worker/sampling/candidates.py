"""Candidates for the next token, likeliest first, and the rules that narrow them. Pure.

Candidates are complete: a token that is left out is less likely than every one that is not. A rule
for sorted logits says how many of the first remain, so narrowing is slicing. The rules compute
what llama.cpp's samplers of the same names do, with at least one token kept.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""Logits, or weights (probabilities that may need to be divided by their sum)."""


class Candidates(NamedTuple):
    """Tokens and their logits, in falling order of these. Of equals, the lower id is first."""

    tokens: npt.NDArray[np.intp]
    logits: Floats

    def first(self, count: int) -> Candidates:
        """Return the *count* likeliest."""
        return Candidates(self.tokens[:count], self.logits[:count])

    def from_(self, index: int) -> Candidates:
        """Return what is left without the *index* likeliest."""
        return Candidates(self.tokens[index:], self.logits[index:])

    def weights(self) -> Floats:
        """Return probabilities as multiples of the likeliest's."""
        weights: Floats = np.exp(self.logits - self.logits[0])
        return weights


def top_p(weights: Floats, p: float, total: float | None = None) -> int:
    """Return how many of the first have at least *p* of all the weight.

    *total* is given where *weights* are not all there are. Then the answer may be one more than
    there are weights: they do not suffice.
    """
    sums = weights.cumsum()
    return int(sums.searchsorted(p * (sums[-1] if total is None else total))) + 1


def min_p(logits: Floats, p: float) -> int:
    """Return how many of the first are at least *p* times as likely as the likeliest."""
    return max(int((-logits).searchsorted(-min_p_bound(logits[0], p), side="right")), 1)


def min_p_bound(peak: float, p: float) -> float:
    """Return the lowest logit that is at least *p* times as likely as the logit *peak*."""
    return peak + math.log(p)


def typical(weights: Floats, p: float) -> npt.NDArray[np.intp]:
    """Return the places, ascending, of those whose surprise is closest to the mean surprise.

    They have more than *p* of the weight together.
    """
    probabilities = weights / weights.sum()
    surprises = -np.log(np.maximum(probabilities, _TINY))
    entropy = (probabilities * surprises).sum()
    order = np.abs(surprises - entropy).argsort(kind="stable")
    count = int(probabilities[order].cumsum().searchsorted(p, side="right")) + 1
    places: npt.NDArray[np.intp] = np.sort(order[:count])
    return places


_TINY: Final = np.finfo(np.float64).tiny


def xtc(weights: Floats, threshold: float) -> int:
    """Return how many of the first to leave out: all of at least *threshold* but the last."""
    likely = int((-weights).searchsorted(-threshold * weights.sum(), side="right"))
    return max(likely - 1, 0)


def drawn(weights: npt.NDArray[np.floating], uniform: float) -> int:
    """Return the place at which the running sum of *weights* passes *uniform* of their total."""
    sums = weights.cumsum(dtype=np.float64)
    index = int(sums.searchsorted(uniform * sums[-1], side="right"))
    if index == len(sums):  # Rounded up to the total: the last one that has any weight.
        index = int(sums.searchsorted(sums[-1]))
    return index
