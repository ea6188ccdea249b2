"""Which tokens go into the next batch. Pure.

Every sequence that decodes gets its token first (and the tokens its grammar forces), so none
starves. Prompts get what is left, oldest first: finishing one before starting the next gives the
earlier request its first token sooner and the later one no later. Beside decodes, prompts are held
to an allowance, because everyone in a batch waits for the whole batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

SLOWDOWN_MAX: Final = 2.5
"""How much longer a step may get by the prompts in it, as a multiple of one without."""
CHUNK_TOKENS: Final = 128
"""Prompt tokens that are worth a step. Smaller ones are dear: llama.cpp computes attention in tiles
from 64 tokens on, and on a processor each token of a smaller batch costs several times as much."""
STEPS_BETWEEN_CHUNKS: Final = 24
"""Where a chunk takes longer than SLOWDOWN_MAX allows, so many steps are without one: nineteen of
twenty gaps between tokens stay as they are, and some."""
BURST_TOKENS: Final = 256
"""Prompt tokens that join at once when none did for a while: short prompts, also a few together."""
SMOOTHING: Final = 0.25
"""Weight of the newest measurement."""


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """What one request could compute now."""

    who: int
    n_tokens: int
    is_decode: bool
    arrival: int
    """Orders the prompts: smaller came earlier."""


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What a request gets of the next batch."""

    who: int
    n_tokens: int


def share_batch(needs: Sequence[Need], n_batch: int, allowance: int) -> list[Share]:
    """Return who computes how many tokens in a batch of at most *n_batch*.

    1. Each decoding request gets its first token, in order, then the rest of its forced ones.
    2. Prompts get what is left, oldest first; together at most *allowance* if somebody decodes.
    """
    decodes = [need for need in needs if need.is_decode][:n_batch]
    room = n_batch - len(decodes)
    shares = []
    for need in decodes:
        extra = min(need.n_tokens - 1, room)
        room -= extra
        shares.append(Share(need.who, 1 + extra))
    if shares:
        room = min(room, allowance)
    for need in sorted((n for n in needs if not n.is_decode), key=lambda n: n.arrival):
        take = min(need.n_tokens, room)
        if take <= 0:
            break
        shares.append(Share(need.who, take))
        room -= take
    return shares


class PrefillAllowance:
    """How many prompt tokens may join a step beside decodes, learnt from how long steps take.

    A bucket that every step beside decodes fills. Where a chunk is cheap (on a GPU) it is filled by
    as many tokens as a step can take within SLOWDOWN_MAX; where it is dear, so that a chunk comes
    once in STEPS_BETWEEN_CHUNKS.
    """

    def __init__(self) -> None:
        self._decode_s = 0.0
        """A step without prompts."""
        self._token_s = 0.0
        """What one prompt token adds, in a chunk."""
        self._saved = float(BURST_TOKENS)

    def allow(self, n_wanted: int) -> int:
        """Return how many of the *n_wanted* tokens of all prompts may join the next step."""
        if self._saved < min(n_wanted, CHUNK_TOKENS):
            return 0
        return min(n_wanted, int(self._saved))

    @property
    def _pace(self) -> float:
        """Tokens that a step adds to the bucket."""
        if self._decode_s and self._token_s:
            pace = (SLOWDOWN_MAX - 1) * self._decode_s / self._token_s
            if pace >= CHUNK_TOKENS:
                return pace
        return CHUNK_TOKENS / STEPS_BETWEEN_CHUNKS

    def note(self, n_decode: int, n_prefill: int, took_s: float) -> None:
        """Learn from a step."""
        if n_decode and not n_prefill:
            self._decode_s = _smoothed(self._decode_s, took_s)
        elif n_prefill >= CHUNK_TOKENS:
            decode_s = self._decode_s if n_decode else 0.0
            cost_s = max(took_s - decode_s, 0.0) / n_prefill
            self._token_s = _smoothed(self._token_s, cost_s)
        if n_decode:
            pace = self._pace
            room = max(float(BURST_TOKENS), pace)
            self._saved = min(max(self._saved - n_prefill, 0.0) + pace, room)


def _smoothed(before: float, newest: float) -> float:
    return newest if not before else before + SMOOTHING * (newest - before)
