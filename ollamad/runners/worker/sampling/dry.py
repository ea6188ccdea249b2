"""DRY ("don't repeat yourself"): a penalty for going on with a sequence said before.

If the last tokens stood somewhere earlier too, the token that came after them there is made less
likely, the more so the longer they are. Sequences end at breakers, such as the end of a line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.edits import Change
from ollamad.runners.worker.sampling.vocab import VocabFacts

Breakers = Mapping[int, tuple[tuple[int, ...], ...]]
"""By the first token of a breaker, what may follow to make it whole; `()` is whole already."""

_BREAKER_BYTES_MAX: Final = 40
_TAIL_TOKENS_MAX: Final = 20
"""llama.cpp's limits. A longer breaker or tail is cut."""
_BREAKERS_KEPT: Final = 8
"""Sets of breakers that are remembered: making one looks at the whole vocabulary."""
_FLAT_BASE: Final = 1.000001
"""Up to here longer sequences cost the same; llama.cpp grows them by less than a thousandth."""
_LN_FLOAT_MAX: Final = 88.7228391
_PENALTY_MAX: Final = 3e38
"""Still a number when it is taken from a logit."""
_ROOM: Final = 256
_NOTHING: Final[Change] = (np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32))


@functools.lru_cache(maxsize=_BREAKERS_KEPT)
def breakers_of(texts: tuple[str, ...], vocab: VocabFacts) -> Breakers:
    """Return the token sequences in which one of *texts* is complete.

    1. A token that contains the text is a breaker of its own.
    2. A token that ends like the text begins is one together with the tokens of the text's rest.
    """
    pieces = [vocab.piece(token) for token in range(vocab.n_vocab)]
    found: dict[int, list[tuple[int, ...]]] = {}
    for text in texts:
        breaker = text.encode(errors="replace")[:_BREAKER_BYTES_MAX]
        if not breaker:
            continue
        beginnings = [(breaker[:size], size) for size in range(1, len(breaker))]
        for token, piece in enumerate(pieces):
            if breaker in piece:  # 1
                found.setdefault(token, []).append(())
                continue
            for beginning, size in beginnings:  # 2
                if piece.endswith(beginning):
                    tail = tuple(vocab.tokenize(breaker[size:].decode(errors="replace")))
                    found.setdefault(token, []).append(tail[:_TAIL_TOKENS_MAX])
    return {token: tuple(dict.fromkeys(tails)) for token, tails in found.items()}


class Dry:
    """Keeps the last tokens and finds where they stood before."""

    def __init__(
        self, options: SamplingOptions, history: Sequence[int], breakers: Breakers
    ) -> None:
        self._breakers = breakers
        self._multiplier = options.dry_multiplier
        self._base = options.dry_base
        self._allowed = options.dry_allowed_length
        self._last_n = options.dry_penalty_last_n
        # Beyond this length a penalty would overflow, so no longer sequence is looked for.
        grows_for = math.log(self._base) if self._base > _FLAT_BASE else math.inf
        self._length_max = self._allowed + int(_LN_FLOAT_MAX / grows_for)
        kept = history if self._last_n < 0 else history[-self._last_n :]
        self._count = len(kept)
        self._said = np.empty(max(2 * len(kept), _ROOM), dtype=np.int32)
        self._said[: len(kept)] = kept

    @staticmethod
    def is_on(options: SamplingOptions) -> bool:
        """Return whether *options* ask for it."""
        return (
            options.dry_multiplier != 0
            and options.dry_base >= 1
            and options.dry_penalty_last_n != 0
        )

    def accept(self, token: int) -> None:
        """See Editor."""
        if self._count == len(self._said):
            # Half of the room is free again afterwards, so this is rare.
            kept = self._window()
            self._said = np.empty(max(2 * len(kept), _ROOM), dtype=np.int32)
            self._said[: len(kept)] = kept
            self._count = len(kept)
        self._said[self._count] = token
        self._count += 1

    def _window(self) -> npt.NDArray[np.int32]:
        begin = max(self._count - self._last_n, 0) if self._last_n >= 0 else 0
        return self._said[begin : self._count]

    def change(self, logits: npt.NDArray[np.float32]) -> Change:
        """See Editor."""
        window = self._window()
        if len(window) <= self._allowed:
            return _NOTHING
        length_max = self._unbroken(window)
        if length_max < self._allowed:
            return _NOTHING
        lengths = self._repeated(window, length_max)
        if not lengths:
            return _NOTHING
        breakers = self._breakers
        costly = [token for token in lengths if () not in breakers.get(token, ())]
        tokens = np.array(costly, dtype=np.intp)
        excess = np.array([lengths[token] - self._allowed for token in costly])
        penalties = np.minimum(self._multiplier * np.power(self._base, excess), _PENALTY_MAX)
        return tokens, (logits[tokens] - penalties).astype(np.float32)

    def _unbroken(self, window: npt.NDArray[np.int32]) -> int:
        """Return how many last tokens come after the last breaker, `_length_max` at most."""
        length_max = min(len(window), self._length_max)
        if not self._breakers:
            return length_max
        last: list[int] = window[-length_max - _TAIL_TOKENS_MAX - 1 :][::-1].tolist()
        for index, token in enumerate(last):
            tails = self._breakers.get(token)
            if tails is None:
                continue
            whole = [len(tail) for tail in tails if _follows(tail, last[:index])]
            if whole:
                return min(index - max(whole), length_max)
        return length_max

    def _repeated(self, window: npt.NDArray[np.int32], length_max: int) -> dict[int, int]:
        """Return by token how long the sequence is that it would go on with, the allowed at least.

        All earlier places are compared at once, from the end of the sequence backwards; those
        that differ drop out, most of them in the first step.
        """
        if self._allowed:
            ends, length = np.flatnonzero(window[:-1] == window[-1]), 1
        else:
            ends, length = np.arange(len(window) - 1), 0
        # Here *length* tokens up to each of *ends* are the same as the last *length*.
        while length < self._allowed and len(ends):
            ends = ends[_goes_on(window, ends, length)]
            length += 1
        following = window[ends + 1]
        lengths = np.full(len(ends), length)
        alive = np.arange(len(ends))
        while length < length_max and len(alive):
            alive = alive[_goes_on(window, ends[alive], length)]
            length += 1
            lengths[alive] = length
        order = lengths.argsort(kind="stable")  # Of a token's lengths, the last and longest counts.
        return dict(zip(following[order].tolist(), lengths[order].tolist(), strict=True))


def _goes_on(
    window: npt.NDArray[np.int32], ends: npt.NDArray[np.intp], length: int
) -> npt.NDArray[np.bool_]:
    """Return for each of *ends* if the token *length* before it is the same as at the very end."""
    # A place before the beginning counts from the end, which does no harm: it is not taken.
    wanted = window[len(window) - 1 - length]
    same: npt.NDArray[np.bool_] = (ends >= length) & (window[ends - length] == wanted)
    return same


def _follows(tail: Sequence[int], last: Sequence[int]) -> bool:
    """Return whether *tail* is what came next, where *last* has the newest token first."""
    return not tail or tuple(last[: -len(tail) - 1 : -1]) == tuple(tail)
