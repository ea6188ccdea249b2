"""How much of a prompt a slot's KV cache already holds, and which slot to take. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

LOSS_WEIGHT: Final = 0.25
"""What a cached token that is overwritten counts against one that is saved: it may never be asked
for again."""


@dataclasses.dataclass(frozen=True, slots=True)
class IdleSlot:
    """A free slot and what its KV cache still holds."""

    slot: int
    cached: Sequence[int]
    """Token ids, from position 0."""
    last_used: int
    """Smaller was used longer ago."""


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many first tokens both have in common."""
    shorter = min(len(left), len(right))
    if left[:shorter] == right[:shorter]:
        return shorter  # The common case, decided by one comparison in C.
    return next((i for i in range(shorter) if left[i] != right[i]), shorter)


def choose_slot(idle: Sequence[IdleSlot], prompt: Sequence[int]) -> tuple[int, int]:
    """Return the slot that saves most of *prompt*, and how many tokens it saves.

    1. The one with the largest gain: tokens saved, less LOSS_WEIGHT for each token overwritten.
       All prompts of a model share their first tokens; that must not cost another conversation
       its cache while a slot is empty.
    2. Among equals, the least recently used.

    The last token of a prompt is always computed, because its logits are needed.
    """
    reusable = max(len(prompt) - 1, 0)

    def gain(slot: IdleSlot) -> tuple[float, int]:
        common = common_prefix(slot.cached, prompt)
        lost = len(slot.cached) - common
        return min(common, reusable) - LOSS_WEIGHT * lost, -slot.last_used

    best = max(idle, key=gain)
    return best.slot, min(common_prefix(best.cached, prompt), reusable)
