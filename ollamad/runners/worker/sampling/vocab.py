"""What sampling has to know about a model's vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence


def _no_tokens(_text: str) -> Sequence[int]:
    return ()


def _no_piece(_token: int) -> bytes:
    return b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VocabFacts:
    """One of these for each loaded model: what is derived from it is kept by its identity."""

    n_vocab: int
    find_end_tokens: Callable[[], tuple[int, ...]] = tuple
    """Finds the tokens that end an answer. Called only where they are needed: it takes a while."""
    tokenize: Callable[[str], Sequence[int]] = _no_tokens
    """Token ids of a text, without added or recognised special tokens."""
    piece: Callable[[int], bytes] = _no_piece
    """A token's bytes."""

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self.find_end_tokens()
