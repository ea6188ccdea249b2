"""The façade the doors use: `lease`, `unload`, `loaded`, what administrators ask, `drain`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Final

import trio

from ollamad.config import SchedulingConfig
from ollamad.errors import DoesNotFit, OllamadError, RunnerCrashed
from ollamad.modelinfo import StoredModel, WeightsId
from ollamad.modelpolicy import NO_POLICY, ModelPolicy
from ollamad.options import LoadOptions
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.events import (
    DrainAsked,
    EvictAsked,
    PauseAsked,
    PinAsked,
    RequestArrived,
    RequestContinues,
    RequestGone,
    RequestServedAgain,
    ResetAsked,
    RestartAsked,
    ResumeAsked,
    Subject,
    TicketId,
    UnloadAsked,
)
from ollamad.supervisor.exactdemand import ExactDemand
from ollamad.supervisor.explanation import Explanation, explain
from ollamad.supervisor.healing import Part, Suspects
from ollamad.supervisor.leases import Lease, LeasedRunner
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.runnertask import RunnerTask
from ollamad.supervisor.views import (
    CoolingView,
    DeviceView,
    ResidentView,
    WaitingView,
    cooling_views,
    device_views,
    resident_views,
    waiting_views,
)

CLIENT_LETTERS_MAX: Final = 64
"""Letters of a client's name that are kept; an address has fewer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """Whether the kernel does its work."""

    is_green: bool
    why: str = ""
    """What is wrong."""


def no_policy(_name: str) -> ModelPolicy:
    """Return that nothing was laid down for any model."""
    return NO_POLICY


class Supervisor:
    """Who runs now, for those who ask.

    Whatever acts becomes an event for the kernel, which decides when it comes to it. What is
    returned at once is a snapshot, as true as `/api/ps`.
    """

    def __init__(
        self,
        loop: Loop,
        policies: Callable[[str], ModelPolicy] = no_policy,
        exact: ExactDemand | None = None,
    ) -> None:
        """*exact* asks the engine what a model needs, before it is refused for want of memory."""
        self._loop = loop
        self._exact = exact
        self._policies = policies
        self._tickets = map(TicketId, itertools.count(1))
        self._suspects = Suspects()

    # For users

    async def lease(
        self,
        model: StoredModel,
        options: LoadOptions,
        keep_alive_s: float | None = None,
        client: str = "",
    ) -> Lease:
        """Wait for a runner of *model* and return a lease on it, which must be released.

        *client* is who asks, in any words: clients take turns. Cancellation leaves the line or
        gives the runner back; a load that others wait for goes on.
        Raises what the core refuses with: QueueFull, Draining, CoolingDown, DoesNotFit,
        LoadFailed, LoadTimedOut.
        """
        started_at = trio.current_time()
        arrival = RequestArrived(
            ticket=next(self._tickets),
            subject=self._subject_of(model),
            options=options,
            keep_alive_s=keep_alive_s,
            client=client[:CLIENT_LETTERS_MAX],
        )
        try:
            claim, runner = await self._granted(arrival)
        except DoesNotFit:
            # By an estimate. The engine may know better; then it is asked for once more.
            if self._exact is None or not await self._exact.learn(arrival.subject, options):
                raise
            again = dataclasses.replace(arrival, ticket=next(self._tickets))
            claim, runner = await self._granted(again)
        return Lease(
            runner,
            claim,
            weights_id=model.weights_id,
            suspects=self._suspects,
            waited_s=trio.current_time() - started_at,
        )

    async def _granted(self, arrival: RequestArrived) -> tuple[_Claim, RunnerTask]:
        """Wait in the line, and return the runner that was granted. Raises the refusal."""
        ticket = arrival.ticket
        claim = _Claim(self._loop, ticket)
        answered = trio.Event()
        answer: list[RunnerTask | OllamadError] = []

        def tell(value: RunnerTask | OllamadError) -> None:
            answer.append(value)
            answered.set()

        self._loop.expect(ticket, tell)
        self._loop.post(arrival)
        try:
            await answered.wait()
        except trio.Cancelled:
            claim.give_back()
            raise
        (value,) = answer
        if isinstance(value, OllamadError):
            raise value
        return claim, value

    def unload(self, weights_id: WeightsId) -> None:
        """Unload as soon as nobody uses it. Nothing happens if it is not resident."""
        self._loop.post(UnloadAsked(weights_id))

    # For those who look, and those who administer the daemon

    def residents(self) -> tuple[ResidentView, ...]:
        """Return what is resident now."""
        return resident_views(self._loop.core, trio.current_time(), self._loop.gauges_of)

    def waiting(self) -> tuple[WaitingView, ...]:
        """Return who waits now, whose turn it is first."""
        return waiting_views(self._loop.core, trio.current_time())

    def devices(self) -> tuple[DeviceView, ...]:
        """Return the devices as they were last seen."""
        return device_views(self._loop.core)

    def cooling(self) -> tuple[CoolingView, ...]:
        """Return the models that are not started again for a while."""
        return cooling_views(self._loop.core, trio.current_time())

    def explain(self, model: StoredModel, options: LoadOptions) -> Explanation:
        """Return what would become of a request now. Changes nothing."""
        subject = self._subject_of(model)
        return explain(self._loop.core, subject, options, trio.current_time())

    def evict(self, weights_id: WeightsId, force: bool = False) -> bool:
        """Let a runner leave when its answers are finished, or stop it at once.

        Return whether there is one now.
        """
        return self._ask_runner(EvictAsked(weights_id, by_force=force))

    def restart(self, weights_id: WeightsId) -> bool:
        """Replace a runner by a new one when its answers are finished. Return whether there is
        one now."""
        return self._ask_runner(RestartAsked(weights_id))

    def reset(self, weights_id: WeightsId) -> bool:
        """Forget a model's failures, so that it need not cool. Return whether there are any now."""
        failures = self._loop.core.roster.failures
        self._loop.post(ResetAsked(weights_id))
        return failures.n_failures(weights_id) > 0

    def pin(self, weights_id: WeightsId, pinned: bool) -> bool:
        """Say whether a model stays once it is loaded. Return whether it is loaded now."""
        return self._ask_runner(PinAsked(weights_id, pinned))

    def drain_begin(self) -> None:
        """Take no new work and let all models leave, until `resume`."""
        self._loop.post(PauseAsked())

    def resume(self) -> None:
        """Take work again. A daemon that ends does not turn back."""
        self._loop.post(ResumeAsked())

    async def preload(self, model: StoredModel, options: LoadOptions) -> None:
        """Load a model, and wait until it is ready. Raises what `lease` raises."""
        lease = await self.lease(model, options)
        lease.release()

    def _ask_runner(self, event: EvictAsked | RestartAsked | PinAsked) -> bool:
        self._loop.post(event)
        return self._loop.core.roster.of(event.weights_id) is not None

    # For the root

    @property
    def state(self) -> DaemonState:
        """Whether the daemon serves, is paused, or is on its way to its end."""
        return self._loop.core.state

    async def give_sign(self) -> None:
        """Return when the kernel has handled an event that comes now. As long as it hangs, wait."""
        await self._loop.give_sign()

    def health(self, now: float) -> Health:
        """Return whether the kernel does its work.

        It does not if events wait unhandled, if a deadline passed without being met, or if a
        request waits for something that could be done.
        """
        overdue = self._loop.overdue(now)
        return Health(is_green=not overdue, why=overdue)

    def reconfigure(self, scheduling: SchedulingConfig) -> None:
        """Use other limits from the next decision on."""
        self._loop.core.scheduling = scheduling

    async def drain(self) -> None:
        """Take no new work, let open requests end, and wait until nothing is resident."""
        self._loop.post(DrainAsked())
        await self._loop.drained.wait()

    def _subject_of(self, model: StoredModel) -> Subject:
        return subject_of(model, self._policies(model.name.display))


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


def subject_of(model: StoredModel, policy: ModelPolicy = NO_POLICY) -> Subject:
    """Return what the core needs to know of a stored model, and of what is laid down for it."""
    return Subject(
        weights_id=model.weights_id,
        name=model.name.display,
        model_path=str(model.weights_path),
        adapter_paths=tuple(map(str, model.adapter_paths)),
        facts=model.facts,
        policy=policy,
    )
