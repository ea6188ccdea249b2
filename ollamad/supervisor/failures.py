"""The failures of all models: who cools, whose start is put off, who needs more room. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Final

from ollamad.config import SchedulingConfig
from ollamad.errors import CoolingDown
from ollamad.modelinfo import WeightsId
from ollamad.supervisor.events import Subject
from ollamad.supervisor.restart import FailureHistory, RestartPolicy

MARGIN_STEP: Final = 1.25
"""How much more a model is planned with after each load that ran out of memory..."""
MARGIN_MAX: Final = 1.6
"""...and how much at most."""
MARGIN_LASTS_S: Final = 3600.0
"""After this the estimate is believed again: somebody else may have taken the memory."""
MARGINS_MAX: Final = 256
"""Models whose margins are remembered; the one raised longest ago is forgotten first."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Margin:
    factor: float = 1.0
    is_retrying: bool = False
    """Its load ran out of memory and is tried once more."""
    raised_at: float = -math.inf


class FailureBook:
    """What has gone wrong with each model, and what follows from it."""

    def __init__(self, scheduling: SchedulingConfig) -> None:
        self.scheduling = scheduling
        self._histories: dict[WeightsId, FailureHistory] = {}
        self._margins: dict[WeightsId, _Margin] = {}

    def record(self, subject: Subject, reason: str, now: float) -> FailureHistory:
        """Add a failure and return the model's history."""
        history = self._histories.setdefault(subject.weights_id, FailureHistory(self._policy))
        history.name = subject.name
        history.record(reason, now)
        return history

    def forgive(self, weights_id: WeightsId, n_failures: int, now: float) -> None:
        """Forget a model's last failures: a request was to blame."""
        if (history := self._histories.get(weights_id)) is not None:
            history.forgive(n_failures, now)

    def cooling(self, subject: Subject, now: float) -> CoolingDown | None:
        """Return why *subject* may not be used yet, or `None` if it may."""
        history = self._histories.get(subject.weights_id)
        until = history.cooling_until(now) if history is not None else None
        if history is None or until is None:
            return None
        return CoolingDown(
            f"{subject.name} failed {len(history.failed_at)} times, last: "
            f"{history.last_reason}; it is not started again for {until - now:.0f} s",
            retry_after_s=until - now,
        )

    def put_off_until(self, weights_id: WeightsId) -> float:
        """Return before when it is not started again; minus infinity for no such time."""
        history = self._histories.get(weights_id)
        return history.put_off_until if history is not None else -math.inf

    def n_failures(self, weights_id: WeightsId) -> int:
        """Return the failures that are not forgotten yet."""
        history = self._histories.get(weights_id)
        return len(history.failed_at) if history is not None else 0

    def of_cooling(self, now: float) -> Iterator[tuple[WeightsId, FailureHistory]]:
        """Yield the models that cool, with their histories."""
        for weights_id, history in self._histories.items():
            if history.cooling_until(now) is not None:
                yield weights_id, history

    def reset(self, weights_id: WeightsId) -> bool:
        """Forget its failures and its margin. Return whether there were any."""
        had_margin = self._margins.pop(weights_id, None) is not None
        return self._histories.pop(weights_id, None) is not None or had_margin

    def forget_old(self, now: float) -> None:
        """Forget what the window has passed."""
        for weights_id in [w for w, h in self._histories.items() if h.is_forgotten(now)]:
            del self._histories[weights_id]
        for weights_id, margin in list(self._margins.items()):
            if margin.raised_at + MARGIN_LASTS_S <= now:
                del self._margins[weights_id]

    def next_deadline(self, now: float) -> float:
        """Return when the next start that was put off may happen; infinite if there is none."""
        return min(
            (h.put_off_until for h in self._histories.values() if h.put_off_until > now),
            default=math.inf,
        )

    # Loads that ran out of memory

    def ran_out_of_memory(self, weights_id: WeightsId, now: float) -> bool:
        """Raise the margin. Return whether the load is to be tried again: once only."""
        old = self._margins.pop(weights_id, _Margin())
        factor = min(old.factor * MARGIN_STEP, MARGIN_MAX)
        self._margins[weights_id] = _Margin(factor, not old.is_retrying, now)
        if len(self._margins) > MARGINS_MAX:
            del self._margins[next(iter(self._margins))]
        return not old.is_retrying

    def loaded(self, weights_id: WeightsId) -> None:
        """It is loaded: its next load that runs out of memory is tried again, too."""
        if (margin := self._margins.get(weights_id)) is not None:
            self._margins[weights_id] = dataclasses.replace(margin, is_retrying=False)

    def margin(self, weights_id: WeightsId) -> float:
        """Return the factor with which its demand is planned."""
        return self._margins.get(weights_id, _Margin()).factor

    def is_retrying(self, weights_id: WeightsId) -> bool:
        """Its load ran out of memory and is to be tried once more."""
        return self._margins.get(weights_id, _Margin()).is_retrying

    @property
    def _policy(self) -> RestartPolicy:
        return RestartPolicy(
            failures_max=self.scheduling.restart_failures_max,
            window_s=self.scheduling.restart_window_s,
            cooling_s=self.scheduling.cooling_s,
            delay_s=self.scheduling.restart_delay_s,
            delay_max_s=self.scheduling.restart_delay_max_s,
        )
