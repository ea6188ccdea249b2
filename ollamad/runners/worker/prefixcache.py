"""How much of a prompt a slot's KV cache already holds, and which slot to take. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


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

    1. The longest common prefix wins.
    2. Among equals, the one that loses least: the shortest cache, then the least recently used.

    The last token of a prompt is always computed, because its logits are needed.
    """
    reusable = max(len(prompt) - 1, 0)
    best = max(
        idle,
        key=lambda slot: (
            min(common_prefix(slot.cached, prompt), reusable),
            -len(slot.cached),
            -slot.last_used,
        ),
    )
    return best.slot, min(common_prefix(best.cached, prompt), reusable)
