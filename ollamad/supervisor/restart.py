"""After a failure: start again now, later, or not yet. Pure.

A model's first failure within a window is forgiven at once: the next request starts it again. After
each further one its start is put off, twice as long each time, and requests wait for that. After
too many it cools: requests are refused with the reason, so that a model that crashes at every
request cannot keep the machine busy with loading it. There is no chance in the delays: one daemon
starts its models, so there is no herd to scatter.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

_DOUBLINGS_MAX: Final = 60
"""Beyond these every delay is the longest one; a float would overflow some day."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """The limits."""

    failures_max: int
    """As many failures within the window start a cooling."""
    window_s: float
    cooling_s: float
    delay_s: float
    """How long a start is put off after the second failure; twice that after the third..."""
    delay_max_s: float
    """...and never longer than this."""


@dataclasses.dataclass(slots=True)
class FailureHistory:
    """One model's failures."""

    policy: RestartPolicy
    name: str = ""
    failed_at: list[float] = dataclasses.field(default_factory=list)
    last_reason: str = ""
    blamed_at: list[float] = dataclasses.field(default_factory=list)
    """When requests were blamed for failures."""
    cools_until: float = -math.inf
    """When the last cooling is over. Kept, not computed from the failures: those are forgotten by
    the window, which may end in the middle of a cooling."""
    put_off_until: float = -math.inf
    """Before this it is not started again."""

    def record(self, reason: str, now: float) -> None:
        """Add a failure."""
        self._forget_old(now)
        self.failed_at.append(now)
        self.last_reason = reason
        n_failures = len(self.failed_at)
        if n_failures >= self.policy.failures_max:
            self.cools_until = now + self.policy.cooling_s
        elif n_failures > 1:
            factor = 2.0 ** min(n_failures - 2, _DOUBLINGS_MAX)
            self.put_off_until = now + min(self.policy.delay_s * factor, self.policy.delay_max_s)

    def forgive(self, n_failures: int, now: float) -> None:
        """Forget the last failures, and what followed from them: a request is to blame.

        Not without end: when as many requests are blamed within the window as failures are too
        many, it is the model that dies of whatever it is asked, and it cools.
        """
        self._forget_old(now)
        self.blamed_at.append(now)
        if len(self.blamed_at) >= self.policy.failures_max:
            self.cools_until = now + self.policy.cooling_s
            return
        del self.failed_at[max(len(self.failed_at) - n_failures, 0) :]
        self.cools_until = self.put_off_until = -math.inf

    def cooling_until(self, now: float) -> float | None:
        """Return until when requests are refused, or `None` if they are not."""
        return self.cools_until if self.cools_until > now else None

    def is_forgotten(self, now: float) -> bool:
        """Nothing within the window is left to remember, and nothing is put off."""
        self._forget_old(now)
        is_over = max(self.cools_until, self.put_off_until) <= now
        return is_over and not (self.failed_at or self.blamed_at)

    def _forget_old(self, now: float) -> None:
        since = now - self.policy.window_s
        self.failed_at = [at for at in self.failed_at if at > since]
        self.blamed_at = [at for at in self.blamed_at if at > since]
