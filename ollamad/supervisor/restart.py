"""After a failure: start again now, later, or not yet. Pure.

A model's first failures within a window are forgiven at once: the next request starts it again.
Too many, and it cools for a while, so that a model that crashes at every request cannot keep the
machine busy with loading it.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """The limits."""

    failures_max: int
    """Failures within the window that are forgiven."""
    window_s: float
    cooling_s: float


@dataclasses.dataclass(slots=True)
class FailureHistory:
    """One model's failures."""

    policy: RestartPolicy
    failed_at: list[float] = dataclasses.field(default_factory=list)
    last_reason: str = ""

    def record(self, reason: str, now: float) -> None:
        """Add a failure."""
        self._forget_old(now)
        self.failed_at.append(now)
        self.last_reason = reason

    def cooling_until(self, now: float) -> float | None:
        """Return when the model may be started again, or `None` if it may be now."""
        self._forget_old(now)
        if len(self.failed_at) < self.policy.failures_max:
            return None
        until = self.failed_at[-1] + self.policy.cooling_s
        return until if until > now else None

    def is_forgotten(self, now: float) -> bool:
        """Nothing within the window is left to remember."""
        self._forget_old(now)
        return not self.failed_at

    def _forget_old(self, now: float) -> None:
        self.failed_at = [at for at in self.failed_at if now - at < self.policy.window_s]
