"""The façade the doors use: `lease`, `unload`, `loaded`, `drain`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import trio

from ollamad.config import SchedulingConfig
from ollamad.errors import OllamadError, RunnerCrashed
from ollamad.modelinfo import StoredModel, WeightsId
from ollamad.options import LoadOptions
from ollamad.supervisor.events import (
    DrainAsked,
    RequestArrived,
    RequestContinues,
    RequestGone,
    RequestServedAgain,
    Subject,
    TicketId,
    UnloadAsked,
)
from ollamad.supervisor.healing import Part, Suspects
from ollamad.supervisor.leases import Lease, LeasedRunner
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.runnertask import RunnerTask
from ollamad.supervisor.views import ResidentView, resident_views


class Supervisor:
    """Who runs now, for those who ask."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._tickets = map(TicketId, itertools.count(1))
        self._suspects = Suspects()

    async def lease(
        self, model: StoredModel, options: LoadOptions, keep_alive_s: float | None = None
    ) -> Lease:
        """Wait for a runner of *model* and return a lease on it, which must be released.

        Cancellation leaves the line or gives the runner back; a load that others wait for goes on.
        Raises what the core refuses with: QueueFull, Draining, CoolingDown, DoesNotFit,
        LoadFailed, LoadTimedOut.
        """
        ticket = next(self._tickets)
        claim = _Claim(self._loop, ticket)
        answered = trio.Event()
        answer: list[RunnerTask | OllamadError] = []

        def tell(value: RunnerTask | OllamadError) -> None:
            answer.append(value)
            answered.set()

        started_at = trio.current_time()
        self._loop.expect(ticket, tell)
        self._loop.post(
            RequestArrived(
                ticket=ticket,
                subject=subject_of(model),
                options=options,
                keep_alive_s=keep_alive_s,
            )
        )
        try:
            await answered.wait()
        except trio.Cancelled:
            claim.give_back()
            raise
        (value,) = answer
        if isinstance(value, OllamadError):
            raise value
        return Lease(
            value,
            claim,
            weights_id=model.weights_id,
            suspects=self._suspects,
            waited_s=trio.current_time() - started_at,
        )

    def unload(self, weights_id: WeightsId) -> None:
        """Unload as soon as nobody uses it. Nothing happens if it is not resident."""
        self._loop.post(UnloadAsked(weights_id))

    def loaded(self) -> tuple[ResidentView, ...]:
        """Return what is resident now."""
        return resident_views(self._loop.core, trio.current_time(), self._loop.gauges_of)

    def reconfigure(self, scheduling: SchedulingConfig) -> None:
        """Use other limits from the next decision on."""
        self._loop.core.scheduling = scheduling

    async def drain(self) -> None:
        """Take no new work, let open requests end, and wait until nothing is resident."""
        self._loop.post(DrainAsked())
        await self._loop.drained.wait()


class _Claim:
    """A ticket, as its lease sees it: the way to the core and back."""

    def __init__(self, loop: Loop, ticket: TicketId) -> None:
        self._loop = loop
        self._ticket = ticket

    def ask_again(
        self, part: Part, error: RunnerCrashed, tell: Callable[[LeasedRunner | OllamadError], None]
    ) -> None:
        """See Claim."""
        self._loop.expect(self._ticket, tell)
        self._loop.post(RequestContinues(self._ticket, part, error))

    def served_again(self, n_tokens: int) -> None:
        """See Claim."""
        self._loop.post(RequestServedAgain(self._ticket, n_tokens))

    def give_back(self) -> None:
        """See Claim."""
        self._loop.forget(self._ticket)
        self._loop.post(RequestGone(self._ticket))


def subject_of(model: StoredModel) -> Subject:
    """Return what the core needs to know of a stored model."""
    return Subject(
        weights_id=model.weights_id,
        name=model.name.display,
        model_path=str(model.weights_path),
        adapter_paths=tuple(map(str, model.adapter_paths)),
        facts=model.facts,
    )
