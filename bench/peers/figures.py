"""What is measured, by name: each figure's unit, which way is better, and its statistics.

Pure. A figure is compared by the ratios of rounds, never by the ratio of two averages: both sides
of one round saw the same neighbours on the machine.
"""

from __future__ import annotations

import dataclasses
import enum
import statistics
from collections.abc import Iterable, Sequence


class Better(enum.Enum):
    """Which way a figure should go."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity."""

    name: str
    unit: str
    better: Better


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """The least, the middle and the greatest of some values."""

    least: float
    median: float
    most: float


def spread(values: Iterable[float]) -> Spread | None:
    """Return the spread of *values*, or None if there are none."""
    known = sorted(values)
    if not known:
        return None
    return Spread(known[0], statistics.median(known), known[-1])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that *percent* of *values* do not exceed (nearest rank)."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # Rounded up.
    return ordered[max(0, int(rank) - 1)]


def ratios(ours: Sequence[float | None], peer: Sequence[float | None]) -> list[float]:
    """Return ours/peer of every round in which both were measured."""
    return [
        mine / other
        for mine, other in zip(ours, peer, strict=False)  # A side may have stopped early.
        if mine is not None and other is not None and other > 0
    ]


def is_ahead(ratio: float, better: Better) -> bool:
    """Return whether a ratio ours/peer says that ours is at least as good."""
    return ratio >= 1 if better is Better.HIGHER else ratio <= 1
