"""Texts of exactly so many tokens, a new one whenever one is wanted.

A prompt that was seen before is served from a cache, by both servers: every text here begins
differently, and is the same for both sides of a round.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

_COMMON: Final = """
    the of and to in is was for that on with as by at from are this be have not which were but all
    one their has been they would who more there when will some other time can its two into than
    out only these may new first then most over such even years work well also between life being
    under never day same another know while last might great world very still both long own old
    right each down good through off used away does people place little around house number water
    school without course fact form part against public three small large high man men because
    state home country general end night left thought war until always something side almost head
    far early young power business point group since given set both light kind per company order
    open city change line money means area second often quite full order white human natural
    material field social name room action become words above during need service tell act death
    history today body family early experience society center whole market
"""
WORDS: Final = tuple(dict.fromkeys(_COMMON.split()))
"""Common words: in most vocabularies each one is a token of its own, with the space before it."""

WORDS_MIN: Final = 50


class Prompts:
    """Makes texts from *words*, of which each is one token."""

    def __init__(self, words: Sequence[str], n_special: int, seed: str) -> None:
        self._words = words
        self._n_special = n_special
        self._seed = seed

    def seeded(self, seed: str) -> Prompts:
        """Return the same with other texts."""
        return Prompts(self._words, self._n_special, seed)

    def text(self, n_tokens: int, key: object = "") -> str:
        """Return the text of *key*: *n_tokens* with the special ones that the servers add."""
        return self.words(n_tokens - self._n_special, key)

    def words(self, n_words: int, key: object = "") -> str:
        """Return *n_words* words, each one token, each with a space before it."""
        # Not hash(): its salt would change the texts from run to run.
        source = random.Random(f"{self._seed}/{key}")  # noqa: S311  # Nothing here is secret.
        return "".join(f" {source.choice(self._words)}" for _ in range(n_words))


def prompts_for(tokens_of: Callable[[str], list[str]]) -> Prompts:
    """Return prompts for a model whose tokens of a text are told by *tokens_of*.

    Raises ValueError if too few of our words are one token of it.
    """
    pieces = set(tokens_of("".join(f" {word}" for word in WORDS)))
    words = [word for word in WORDS if f" {word}" in pieces]
    if len(words) < WORDS_MIN:
        raise ValueError("this model's vocabulary has too few common words of one token")
    n_special = len(tokens_of(f" {words[0]} {words[0]}")) - 2
    return Prompts(words, n_special, "")
