"""Which runners must leave so that something else becomes possible. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

from ollamad.supervisor.residents import Resident
from ollamad.units import GIB

LOAD_BYTES_PER_S: Final = GIB
"""A guess at how fast a model is loaded again, for comparing models only."""
HALF_AS_DEAR_S: Final = 60.0
"""A runner idle for this long is half as dear as one that was used just now."""
EXACT_MAX: Final = 6
"""Candidates among which the cheapest set is looked for by trying all sets; there are 63. Among
more, runners are added by their price and those left out that turn out not to be needed."""

Price = tuple[int, bool, int, float, int]
"""Requests disturbed, whether one of them was loaded just now, the highest priority, the cost of
loading them again in seconds, and the latest runner. Compared in this order."""


def choose_victims(
    candidates: Sequence[Resident],
    is_enough: Callable[[Sequence[Resident]], bool],
    now: float,
    min_residence_s: float = 0.0,
) -> list[Resident] | None:
    """Return the cheapest of *candidates* whose leaving is enough, none in vain, or `None`.

    *is_enough* tells whether leaving of these makes possible what is wanted; more are never less.
    """
    if is_enough(()):
        return []
    if not candidates or not is_enough(candidates):
        return None

    def price(victims: Sequence[Resident]) -> Price:
        return _price(victims, now, min_residence_s)

    ordered = sorted(candidates, key=lambda resident: price((resident,)))
    if len(ordered) <= EXACT_MAX:
        sets = (
            victims
            for n in range(1, len(ordered) + 1)
            for victims in itertools.combinations(ordered, n)
        )
        return list(next(victims for victims in sorted(sets, key=price) if is_enough(victims)))
    victims: list[Resident] = []
    for resident in ordered:
        victims.append(resident)
        if is_enough(victims):
            break
    for resident in reversed(ordered):
        rest = [victim for victim in victims if victim is not resident]
        if len(rest) < len(victims) and is_enough(rest):
            victims = rest
    return victims


def _price(victims: Sequence[Resident], now: float, min_residence_s: float) -> Price:
    return (
        sum(len(victim.leases) for victim in victims),
        any(now - victim.ready_at < min_residence_s for victim in victims),
        max(victim.subject.policy.priority for victim in victims),
        sum(_reload_s(victim, now) for victim in victims),
        max(victim.runner for victim in victims),
    )


def _reload_s(victim: Resident, now: float) -> float:
    """Return what loading it again costs, the less the longer nobody has asked for it."""
    idle_s = max(now - victim.idle_since, 0.0)  # Minus infinity while it is in use.
    return victim.held_bytes / LOAD_BYTES_PER_S / (1 + idle_s / HALF_AS_DEAR_S)
