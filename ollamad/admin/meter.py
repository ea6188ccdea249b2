"""`TokenMeter`: tokens a second, of each runner and of all. Pure.

Engines count tokens from their model's load and are forgotten with it; rates and a total over the
daemon's life are made here, of samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

SAMPLE_PERIOD_S: Final = 1.0
WINDOW_S: Final = 5.0
"""Over how long rates are averaged: short enough to be of now, long enough not to flicker."""


class TokenMeter:
    """Takes a sample of every runner's count now and then."""

    def __init__(self) -> None:
        self.generated_tokens = 0
        """All that were seen, of runners that are gone too."""
        self._samples: deque[tuple[float, dict[int, int]]] = deque()

    def take(self, now: float, counts: Mapping[int, int]) -> None:
        """Learn how many tokens each runner has generated since its load."""
        before = self._samples[-1][1] if self._samples else {}
        for runner, count in counts.items():
            self.generated_tokens += max(count - before.get(runner, 0), 0)
        self._samples.append((now, dict(counts)))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW_S:
            self._samples.popleft()

    def tokens_per_s(self, runner: int) -> float:
        """Return how fast a runner generates; 0 for one that is not known."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        gained = last.get(runner, 0) - first.get(runner, 0)
        return max(gained, 0) / (now - began) if now > began else 0.0

    def total_tokens_per_s(self) -> float:
        """Return how fast all that are there generate together."""
        return sum(map(self.tokens_per_s, self._samples[-1][1])) if self._samples else 0.0
