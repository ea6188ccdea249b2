"""How often a fast engine's tokens go to the daemon. Pure.

Whatever is sent wakes the daemon and its clients, on cores that the next step needs. Nobody sees
more than sixty pictures a second, so tokens that come faster than that travel together. Every
stream is a wake-up of its own: where many run side by side each has fewer pictures, down to fifteen
a second, which still looks like typing. The first token of an answer, its end, and all that comes
slower are sent at once.
"""

from __future__ import annotations

from typing import Final

from ollamad.runners.protocol import Delta, RequestId
from ollamad.runners.worker.engine import StepResult

PERIOD_MIN_S: Final = 1 / 60
PERIOD_MAX_S: Final = 1 / 15
"""Tokens are held back no longer than until the step that ends after this."""
STREAMS_FAST: Final = 5
"""So many streams have the shortest period; each further one adds as much again."""


def period_s(n_streams: int) -> float:
    """Return how much time may lie between two frames when so many streams run."""
    n_periods = max(n_streams - STREAMS_FAST, 0) + 1
    return min(n_periods * PERIOD_MIN_S, PERIOD_MAX_S)


class Pacer:
    """Holds deltas back for a moment, and gives them out merged."""

    def __init__(self) -> None:
        self._held: dict[RequestId, Delta] = {}
        self._gave_at = 0.0

    def take(self, result: StepResult, now: float, *, is_steady: bool) -> StepResult:
        """Return what is to be sent after a step; nothing while more can be waited for.

        *is_steady* says that the next step will be as short as this one was.
        """
        may_wait = (
            is_steady
            and now < self._gave_at + period_s(len(result.deltas))
            and not (result.finished or result.answers or result.failed)
            and all(delta.offset for delta in result.deltas)
        )
        if may_wait:
            for delta in result.deltas:
                self._hold(delta)
            return StepResult()
        self._gave_at = now
        if self._held:
            for delta in result.deltas:
                self._hold(delta)
            result.deltas = self.rest()
        return result

    def rest(self) -> list[Delta]:
        """Return what is held back, which then is no longer."""
        held = list(self._held.values())
        self._held.clear()
        return held

    def _hold(self, delta: Delta) -> None:
        before = self._held.get(delta.id)
        if before is not None:
            delta = Delta(
                delta.id,
                before.offset,
                before.text + delta.text,
                before.tokens + delta.tokens,
                before.logprobs + delta.logprobs,
            )
        self._held[delta.id] = delta
