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
BURST_TOKENS: Final = 128
"""Prompt tokens beyond that pace once in a while: short prompts join at once, in one step."""
CHUNK_TOKENS_MIN: Final = 4
"""Prompt tokens a step at least: prompts must get on beside very fast decodes, too."""
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

    A step with prompts may take SLOWDOWN_MAX times as long as one without. What is not used is
    saved up to BURST_TOKENS, so that a short prompt that comes alone is computed at once and a long
    one is spread thin: the streams that run meanwhile go on at a steady pace.
    """

    def __init__(self) -> None:
        self._decode_s = 0.0
        """A step without prompts."""
        self._token_s = 0.0
        """What one prompt token adds."""
        self._saved = float(BURST_TOKENS)

    @property
    def tokens(self) -> int:
        """Prompt tokens that the next step may have beside decodes."""
        return int(self._saved) + self._pace

    @property
    def _pace(self) -> int:
        if not self._decode_s or not self._token_s:
            return BURST_TOKENS
        spare_s = (SLOWDOWN_MAX - 1) * self._decode_s
        return max(int(spare_s / self._token_s), CHUNK_TOKENS_MIN)

    def note(self, n_decode: int, n_prefill: int, took_s: float) -> None:
        """Learn from a step."""
        if n_decode and not n_prefill:
            self._decode_s = _smoothed(self._decode_s, took_s)
        elif n_prefill:
            decode_s = self._decode_s if n_decode else 0.0
            cost_s = max(took_s - decode_s, 0.0) / n_prefill
            self._token_s = _smoothed(self._token_s, cost_s)
        if n_decode:
            self._saved = min(max(self._saved + self._pace - n_prefill, 0.0), float(BURST_TOKENS))


def _smoothed(before: float, newest: float) -> float:
    return newest if not before else before + SMOOTHING * (newest - before)
