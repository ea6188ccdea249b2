"""Which tokens go into the next batch. Pure.

Every sequence that decodes gets its one token first, so none starves. What is left of the batch
goes to prefills, oldest first: finishing one prompt before starting the next gives the earlier
request its first token sooner and the later one no later. While others decode, a prefill's share
is capped, because everyone in the batch waits for the whole batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

PREFILL_BESIDE_DECODES_MAX: Final = 128
"""Prompt tokens in one batch while other sequences decode. On a CPU a token of prefill costs
about a fifth of a decode step's time, so this bounds what a newcomer adds to everyone's gap."""


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """What one slot could compute now."""

    slot: int
    n_tokens: int
    """1 for a decoding slot, the tokens left of the prompt for a prefilling one."""
    is_decode: bool
    arrival: int
    """Orders the prefills: smaller came earlier."""


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What a slot gets of the next batch."""

    slot: int
    n_tokens: int


def share_batch(needs: Sequence[Need], n_batch: int) -> list[Share]:
    """Return who computes how many tokens in a batch of at most *n_batch*.

    1. Each decoding slot gets one token, in slot order.
    2. Prefills get the rest, oldest first; at most PREFILL_BESIDE_DECODES_MAX tokens together
       when somebody decodes.
    """
    shares = [Share(need.slot, 1) for need in needs if need.is_decode][:n_batch]
    room = n_batch - len(shares)
    if shares:
        room = min(room, PREFILL_BESIDE_DECODES_MAX)
    for need in sorted((n for n in needs if not n.is_decode), key=lambda n: n.arrival):
        take = min(need.n_tokens, room)
        if take <= 0:
            break
        shares.append(Share(need.slot, take))
        room -= take
    return shares
