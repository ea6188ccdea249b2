"""`TokenSampler`: chooses the tokens of one request.

The samplers are llama.cpp's, in the order of its default chain, computed in numpy over the raw
logits. Against its own chain stands that it copies the vocabulary into an array of structures for
each token, and that its random numbers depend on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.protocol import FailureCode
from ollamad.runners.worker.engine import EngineRefused
from ollamad.runners.worker.sampling import candidates
from ollamad.runners.worker.sampling.candidates import Candidates
from ollamad.runners.worker.sampling.chance import Chance, Purpose
from ollamad.runners.worker.sampling.dry import Dry, breakers_of
from ollamad.runners.worker.sampling.edits import Bias, Editor, edited
from ollamad.runners.worker.sampling.mask import TokenMask
from ollamad.runners.worker.sampling.mirostat import Mirostat
from ollamad.runners.worker.sampling.penalties import Penalties
from ollamad.runners.worker.sampling.pool import Pool
from ollamad.runners.worker.sampling.scratch import scratch
from ollamad.runners.worker.sampling.vocab import VocabFacts

_TEMPERATURE_MIN: Final = 1e-7
"""Below, the likeliest token has all the probability that numbers can express."""
_XTC_THRESHOLD_MAX: Final = 0.5
"""No two tokens are both likelier than this."""
_FEW: Final = 4096
"""So few allowed tokens are looked at one by one; of more, the others are masked out."""
_MASKED_TRY: Final = 4
"""How many times as many tokens as wanted are looked at, before all are masked."""


class TokenSampler:
    """Chooses tokens for one request.

    It needs no closing, and `choose` changes nothing: only `accept` does.
    """

    def __init__(
        self,
        options: SamplingOptions,
        seed: int,
        vocab: VocabFacts,
        history: Sequence[int] = (),
    ) -> None:
        """Take *history*, the tokens of the prompt and of what is answered already."""
        self._options = options
        self._chance = Chance(seed)
        self._is_greedy = options.temperature < _TEMPERATURE_MIN
        self._editors: list[Editor] = []
        if Bias.is_on(options):
            self._editors.append(Bias(options, vocab))
        if Penalties.is_on(options):
            self._editors.append(Penalties(options, history))
        if Dry.is_on(options):
            breakers = breakers_of(options.dry_sequence_breakers, vocab)
            self._editors.append(Dry(options, history, breakers))
        self._mirostat = Mirostat(options, vocab.n_vocab) if options.mirostat else None

    def choose(
        self, logits: npt.NDArray[np.float32], position: int, mask: TokenMask | None = None
    ) -> int:
        """Return the token for *position*, counted from the start of the answer.

        *logits* are changed while this computes, and are as before when it returns.
        Raises EngineRefused when the model has computed nonsense, or *mask* allows nothing.
        """
        if not self._editors:
            return self._choose(logits, position, mask)
        with edited(logits, self._editors) as changed:
            return self._choose(changed, position, mask)

    def accept(self, token: int) -> None:
        """Take note that *token* is the next one of the answer, chosen here or not."""
        for editor in self._editors:
            editor.accept(token)
        if self._mirostat is not None:
            self._mirostat.accept(token)

    def _choose(
        self, logits: npt.NDArray[np.float32], position: int, mask: TokenMask | None
    ) -> int:
        if self._is_greedy:
            return _likeliest(logits, mask)
        pool = Pool(logits)
        _refuse_nonsense(pool.peak)
        if mask is None:
            return self._draw(pool, position)
        wanted = self._options.top_k
        if wanted > 0 and self._needs_only_the_best and mask.n_allowed > _FEW:
            # Most often nearly all of the best are allowed: then the mask need not be unpacked.
            best = pool.best(_MASKED_TRY * wanted)
            places = np.flatnonzero(mask.among(best.tokens))[:wanted]
            if len(places) == wanted:
                allowed = Candidates(best.tokens[places], best.logits[places])
                return self._draw_of(self._narrowed(allowed), position)
        return self._draw(_masked(logits, mask), position)

    def _draw(self, pool: Pool, position: int) -> int:
        """Choose one of *pool*.

        1. Mirostat has its own way.
        2. Some rule cuts at a number, a logit or a sum: only what is left of it is ever sorted.
        3. No rule: all tokens take part, unsorted.
        """
        options = self._options
        if self._mirostat is not None:  # 1
            uniform = self._chance.uniform(position, Purpose.DRAW)
            return self._mirostat.choose(pool, options.temperature, uniform)
        kept = self._kept(pool)
        if kept is not None:  # 2
            return self._draw_of(kept, position)
        if self._tosses_xtc(position):  # 3
            bound = pool.peak + math.log(max(options.xtc_threshold, _TINY) * pool.total)
            likely = pool.above(bound)
            pool = pool.without(likely.first(len(likely.tokens) - 1))
        return pool.drawn(options.temperature, self._chance.uniform(position, Purpose.DRAW))

    def _kept(self, pool: Pool) -> Candidates | None:
        """Return what the rules leave of *pool*, or None if there are none."""
        options = self._options
        floor = -math.inf
        if options.top_n_sigma > 0:
            floor = pool.peak - options.top_n_sigma * pool.sigma()
        if options.top_k > 0:
            best = pool.best(options.top_k)
            n_kept = int((-best.logits).searchsorted(-floor, side="right"))
            return self._narrowed(best.first(max(n_kept, 1)))
        if floor > -math.inf:
            return self._narrowed(pool.above(floor))
        if self._is_typical:
            return self._narrowed(pool.everything())
        if options.top_p < 1:
            return self._at_least_min_p(pool.nucleus(options.top_p))
        if options.min_p > 0:
            bound = candidates.min_p_bound(pool.peak, options.min_p)
            return pool.above(min(bound, pool.peak))
        return None

    @property
    def _needs_only_the_best(self) -> bool:
        return self._mirostat is None and self._options.top_n_sigma <= 0

    @property
    def _is_typical(self) -> bool:
        return 0 < self._options.typical_p < 1

    def _narrowed(self, kept: Candidates) -> Candidates:
        options = self._options
        if self._is_typical:
            places = candidates.typical(kept.weights(), options.typical_p)
            kept = Candidates(kept.tokens[places], kept.logits[places])
        if options.top_p < 1:
            kept = kept.first(candidates.top_p(kept.weights(), options.top_p))
        return self._at_least_min_p(kept)

    def _at_least_min_p(self, kept: Candidates) -> Candidates:
        if self._options.min_p > 0:
            return kept.first(candidates.min_p(kept.logits, self._options.min_p))
        return kept

    def _draw_of(self, kept: Candidates, position: int) -> int:
        if self._tosses_xtc(position):
            kept = kept.from_(candidates.xtc(kept.weights(), self._options.xtc_threshold))
        weights = np.exp((kept.logits - kept.logits[0]) / self._options.temperature)
        uniform = self._chance.uniform(position, Purpose.DRAW)
        return int(kept.tokens[candidates.drawn(weights, uniform)])

    def _tosses_xtc(self, position: int) -> bool:
        options = self._options
        return (
            options.xtc_probability > 0
            and options.xtc_threshold <= _XTC_THRESHOLD_MAX
            and self._chance.uniform(position, Purpose.XTC) <= options.xtc_probability
        )


_TINY: Final = 1e-300


def _refuse_nonsense(peak: float) -> None:
    # The largest of numbers is a NaN if one of them is, so one look is enough for all.
    if not math.isfinite(peak):
        raise EngineRefused(
            FailureCode.ENGINE, "the model computed no number: its weights are damaged"
        )


def _likeliest(logits: npt.NDArray[np.float32], mask: TokenMask | None) -> int:
    token = int(logits.argmax())  # The place of a NaN, if there is one.
    _refuse_nonsense(float(logits[token]))
    if mask is None or mask.allows(token):
        return token
    pool = _masked(logits, mask)
    return int(pool.best(1).tokens[0])


def _masked(logits: npt.NDArray[np.float32], mask: TokenMask) -> Pool:
    """Return the tokens that *mask* allows. Raises EngineRefused if there is nothing to choose."""
    if mask.n_allowed <= _FEW:
        allowed = logits[mask.tokens]
        pool = Pool(allowed, mask.tokens) if len(allowed) else None
    else:
        # Of a number and an infinity the smaller one. To select by truth values takes ten times
        # as long, because no processor can foresee them.
        limits = scratch("masked", len(logits))
        np.subtract(mask.bools.view(np.uint8), np.float32(0.5), out=limits)
        limits *= np.float32(np.inf)
        pool = Pool(np.minimum(logits, limits, out=limits))
    if pool is None or pool.peak == -math.inf:
        raise EngineRefused(FailureCode.ENGINE, "the grammar leaves no token to choose")
    return pool
