"""Which tokens a grammar allows: one bit a token, as llguidance gives them."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

_WORD_BITS: Final = 32


class TokenMask:
    """A packed set of tokens. It is unpacked only when somebody has to look at all of it.

    A grammar's mask is asked for a few tokens mostly: those that the model likes best are allowed
    more often than not.
    """

    def __init__(self, words: npt.NDArray[np.uint32] | npt.NDArray[np.int32], n_vocab: int) -> None:
        """Take *words*: token `t` is bit `t % 32` of word `t // 32`; bits past the end are ignored.

        The words are not copied and must not change while the mask is in use.
        """
        n_words = -(-n_vocab // _WORD_BITS)
        if len(words) < n_words:
            raise ValueError(f"{len(words)} words are no mask of {n_vocab} tokens")
        self.words: Final = words.view(np.uint32)[:n_words]
        self._n_vocab = n_vocab

    @classmethod
    def of(cls, allowed: npt.NDArray[np.bool_]) -> TokenMask:
        """Return the mask of the tokens for which *allowed* is true."""
        packed = np.packbits(allowed, bitorder="little")
        room = -len(packed) % (_WORD_BITS // 8)
        return cls(np.pad(packed, (0, room)).view(np.uint32), len(allowed))

    def allows(self, token: int) -> bool:
        """Return whether *token* is in the set."""
        return bool((int(self.words[token >> 5]) >> (token & 31)) & 1)

    def among(self, tokens: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Return for each of *tokens* whether it is in the set."""
        bits = (tokens & 31).astype(np.uint32)
        found: npt.NDArray[np.bool_] = ((self.words[tokens >> 5] >> bits) & 1).astype(np.bool_)
        return found

    @functools.cached_property
    def bools(self) -> npt.NDArray[np.bool_]:
        """The set as one truth value a token."""
        data = self.words.view(np.uint8)
        return np.unpackbits(data, bitorder="little", count=self._n_vocab).view(np.bool_)

    @functools.cached_property
    def tokens(self) -> npt.NDArray[np.intp]:
        """The tokens of the set, ascending."""
        return np.flatnonzero(self.bools)

    @functools.cached_property
    def n_allowed(self) -> int:
        """How many tokens are in the set."""
        past_end = len(self.words) * _WORD_BITS - self._n_vocab
        surplus = (int(self.words[-1]) >> (_WORD_BITS - past_end)).bit_count()
        return int(np.bitwise_count(self.words).sum()) - surplus
