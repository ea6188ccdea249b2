"""After a failure: start again now, later, or not yet. Pure.

A model's first failures within a window are forgiven at once: the next request starts it again.
Too many, and it cools for a while, so that a model that crashes at every request cannot keep the
machine busy with loading it.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """The limits."""

    failures_max: int
    """As many failures within the window start a cooling; fewer are forgiven."""
    window_s: float
    cooling_s: float


@dataclasses.dataclass(slots=True)
class FailureHistory:
    """One model's failures."""

    policy: RestartPolicy
    failed_at: list[float] = dataclasses.field(default_factory=list)
    last_reason: str = ""
    blamed_at: list[float] = dataclasses.field(default_factory=list)
    """When requests were blamed for failures."""
    cools_until: float = -math.inf
    """When the last cooling is over. Kept, not computed from the failures: those are forgotten by
    the window, which may end in the middle of a cooling."""

    def record(self, reason: str, now: float) -> None:
        """Add a failure."""
        self._forget_old(now)
        self.failed_at.append(now)
        self.last_reason = reason
        if len(self.failed_at) >= self.policy.failures_max:
            self.cools_until = now + self.policy.cooling_s

    def forgive(self, n_failures: int, now: float) -> None:
        """Forget the last failures, and the cooling they began: a request is to blame for them.

        Not without end: when as many requests are blamed within the window as failures are too
        many, it is the model that dies of whatever it is asked, and it cools.
        """
        self._forget_old(now)
        self.blamed_at.append(now)
        if len(self.blamed_at) >= self.policy.failures_max:
            self.cools_until = now + self.policy.cooling_s
            return
        del self.failed_at[max(len(self.failed_at) - n_failures, 0) :]
        self.cools_until = -math.inf

    def cooling_until(self, now: float) -> float | None:
        """Return when the model may be started again, or `None` if it may be now."""
        return self.cools_until if self.cools_until > now else None

    def is_forgotten(self, now: float) -> bool:
        """Nothing within the window is left to remember, and no cooling goes on."""
        self._forget_old(now)
        return not (self.failed_at or self.blamed_at) and self.cools_until <= now

    def _forget_old(self, now: float) -> None:
        since = now - self.policy.window_s
        self.failed_at = [at for at in self.failed_at if at > since]
        self.blamed_at = [at for at in self.blamed_at if at > since]
