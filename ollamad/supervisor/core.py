"""The decision kernel: who runs now. Ordinary synchronous Python.

`handle(event, now)` applies one event, then settles: it walks the line of waiting requests once
and gives every order that has become possible. `None` means that time has passed. The core never
awaits and reads no clock, device or process; `supervisor.loop` is its only caller.

Invariants (checked by the property tests):
- the reservations on a device never exceed its budget when they are made;
- a runner is stopped while leased only by a deadline, a stall or a failed process;
- every ticket gets exactly one answer, unless it left before;
- when all have left and time has passed, nothing is resident.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

from ollamad.config import SchedulingConfig
from ollamad.errors import (
    DoesNotFit,
    Draining,
    OllamadError,
    QueueFull,
    RunnerCrashed,
)
from ollamad.gpu.budget import Amounts, Budget
from ollamad.gpu.devices import HOST
from ollamad.gpu.placement import explain_misfit, place
from ollamad.runners.states import RunnerState
from ollamad.supervisor import daemonstate
from ollamad.supervisor.commands import AssignThreads, Command, Grant, Refuse
from ollamad.supervisor.compat import PlanDefaults, plans, serves
from ollamad.supervisor.daemonstate import DaemonEvent, DaemonState
from ollamad.supervisor.events import (
    DevicesRead,
    DrainAsked,
    Event,
    RequestArrived,
    RequestContinues,
    RequestGone,
    RequestServedAgain,
    RunnerId,
    UnloadAsked,
)
from ollamad.supervisor.eviction import choose_victims
from ollamad.supervisor.healing import Verdict
from ollamad.supervisor.residents import COMING, LEAVING, SERVING, Resident
from ollamad.supervisor.roster import Roster
from ollamad.supervisor.tickets import Ticket, TicketEvent, TicketLine, TicketState
from ollamad.units import format_bytes

MODELS_LOADED_AUTO: Final = 3
"""Models loaded at once for each device, when nothing else is configured: Ollama's number."""


class Core:
    """Decides. See the module."""

    def __init__(
        self, scheduling: SchedulingConfig, defaults: PlanDefaults, budget: Budget
    ) -> None:
        self.defaults = defaults
        self.roster = Roster(scheduling, budget, self._refuse_waiters)
        self.line = TicketLine()
        self.state = DaemonState.SERVING
        self._now = -math.inf

    @property
    def scheduling(self) -> SchedulingConfig:
        """The limits. May be replaced between two events, when they are read again."""
        return self.roster.scheduling

    @scheduling.setter
    def scheduling(self, limits: SchedulingConfig) -> None:
        self.roster.scheduling = limits

    @property
    def residents(self) -> Mapping[RunnerId, Resident]:
        """The runners that are not GONE."""
        return self.roster.residents

    @property
    def budget(self) -> Budget:
        """Who holds how much of which device."""
        return self.roster.budget

    # What the loop calls

    def handle(self, event: Event | None, now: float) -> list[Command]:
        """Apply *event*, settle, and return what is to be done, in order."""
        self._now = now
        if event is not None:
            self._apply(event, now)
        self.roster.expire(now)
        self._settle(now)
        self._share_cores()
        if self.state is DaemonState.DRAINING and not self.residents:
            self.state = daemonstate.advance(self.state, DaemonEvent.ALL_GONE)
        orders, self.roster.orders = self.roster.orders, []
        return orders

    def next_deadline(self) -> float:
        """Return when `handle(None, ...)` will have something to do; infinite if never."""
        # A ticket that starves already waits for an event, not for time.
        starving = [
            ticket.starves_at
            for ticket in self.line.waiting()
            if ticket.needs_room and ticket.starves_at > self._now
        ]
        return min([self.roster.next_deadline(), *starving])

    # Events

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case RequestArrived():
                self._request_arrived(event, now)
            case RequestGone(ticket_id):
                self.roster.give_back(ticket_id, now)
                self.line.close(ticket_id)
            case RequestContinues():
                self._request_continues(event, now)
            case RequestServedAgain():
                self._request_served_again(event, now)
            case UnloadAsked(weights_id):
                self.roster.unload(weights_id)
            case DrainAsked():
                self.state = daemonstate.advance(self.state, DaemonEvent.DRAIN_ASKED)
                self.roster.unload_all()
            case DevicesRead():
                self.roster.read(event)
            case _:
                self.roster.take(event, now)

    def _request_arrived(self, event: RequestArrived, now: float) -> None:
        ticket = Ticket(
            event.ticket,
            event.subject,
            event.options,
            event.keep_alive_s,
            starves_at=now + self.scheduling.starvation_s,
        )
        is_full = self.line.n_waiting >= self.scheduling.queue_length_max
        self.line.add(ticket)
        if is_full and not self._can_grant_at_once(ticket):
            self._refuse(
                ticket,
                QueueFull("server busy, please try again.  maximum pending requests exceeded"),
            )

    def _request_continues(self, event: RequestContinues, now: float) -> None:
        """A request has lost its runner.

        1. Its client has left meanwhile: nothing.
        2. The runner was stopped because its patience with an eviction ended: so does the request,
           or it would take the room back from those for whom it was made.
        3. It is the likely killer: it ends, and its model is not to blame.
        4. It has gone on often enough: it ends.
        5. It waits at the front of the line, and is settled like everybody there.
        """
        ticket = self.line.put_back(event.ticket, now)
        if ticket is None:  # 1
            return
        runner, name = self.roster.leased_by(ticket.id), ticket.subject.name
        self.roster.give_back(ticket.id, now)
        if runner is not None and not runner.has_failed:  # 2
            text = f"{name} was stopped to make room before the answer was complete"
            self._refuse(ticket, RunnerCrashed(text))
            return
        record, limit = ticket.healing, self.scheduling.heal_attempts_max
        ticket.starves_at = now + self.scheduling.starvation_s
        match record.judge(event.part, attempts_max=limit):
            case Verdict.BLAMED:  # 3
                text = f"{event.error.message}. This request is the likely cause: the runner of "
                text += f"{name} ended {record.n_deaths} times in a row while it was computed"
                self._refuse(ticket, RunnerCrashed(text, blames_request=True))
                self.roster.forgive(ticket.weights_id, record.n_deaths, now)
                self.roster.note(
                    f"a request to {name} is refused: its runner ended {record.n_deaths} times in "
                    "a row while it was computed",
                    level=logging.WARNING,
                )
            case Verdict.SPENT:  # 4
                text = event.error.message
                if limit:
                    text += f"; the answer had been continued {record.n_healed} times already"
                self._refuse(ticket, RunnerCrashed(text))
            case Verdict.GOES_ON:  # 5
                pass

    def _request_served_again(self, event: RequestServedAgain, now: float) -> None:
        """A request survived its new runner, and the runner it: others may join them."""
        ticket, runner = self.line.granted(event.ticket), self.roster.leased_by(event.ticket)
        if ticket is None or runner is None:
            return
        ticket.healing.is_on_trial = False
        runner.on_trial = None if runner.on_trial == ticket.id else runner.on_trial
        pause_s = now - ticket.lost_at
        self.roster.note(
            f"healed: a request to {ticket.subject.name} goes on after {event.n_tokens} tokens "
            f"and a pause of {pause_s:.1f} s",
            runner=runner.runner,
            tokens=event.n_tokens,
            pause_s=round(pause_s, 3),
            attempt=ticket.healing.n_healed,
        )

    def _can_grant_at_once(self, ticket: Ticket) -> bool:
        resident = self.roster.of(ticket.weights_id)
        return (
            resident is not None
            and resident.has_room
            and serves(resident.plan, ticket.subject, ticket.options)
            and next(self.line.waiting_for(ticket.weights_id)) is ticket
        )

    def _refuse_waiters(self, resident: Resident, error: OllamadError) -> None:
        """Tell those who waited for this very load why it failed."""
        for ticket in self.line.waiting_for(resident.weights_id):
            if serves(resident.plan, ticket.subject, ticket.options):
                self._refuse(ticket, error)

    # Decisions

    def _settle(self, now: float) -> None:
        """Answer every waiting ticket that can be answered, first come first.

        Once a ticket waits for room, no later one may start a runner: it could take the room.
        """
        room_is_claimed = False
        for ticket in self.line.waiting():
            if ticket.state is TicketState.WAITING:
                room_is_claimed |= self._settle_one(ticket, now, may_start=not room_is_claimed)

    def _settle_one(self, ticket: Ticket, now: float, *, may_start: bool) -> bool:
        """Answer *ticket* if it can be answered now. Return whether it waits for room.

        1. The daemon drains: refuse.
        2. Its model has a compatible runner with room for one more lease: grant.
        3. Its model's runner is coming, or full, and compatible: wait for it.
        4. Its model's runner is leaving: wait until it is gone.
        5. Its model's runner is incompatible: it must leave first.
        6. The model cools after failures: refuse, with the reason.
        7. It can never fit: refuse, with the numbers.
        8. Another model is being loaded, or someone waits for room: wait.
        9. As many models are loaded as may be, or memory is short: make room, and wait.
        10. It fits: start.
        """
        if self.state is not DaemonState.SERVING:
            self._refuse(ticket, Draining("the daemon is stopping and takes no new requests"))
            return False
        resident = self.roster.of(ticket.weights_id)
        if resident is not None:
            return self._settle_with(resident, ticket, now)
        if (error := self.roster.cooling(ticket.subject, now)) is not None:
            self._refuse(ticket, error)
            return False
        return self._settle_without(ticket, now, may_start=may_start)

    def _settle_with(self, resident: Resident, ticket: Ticket, now: float) -> bool:
        """Cases 2 to 5: the model has a runner."""
        if resident.state in LEAVING:
            ticket.needs_room = False
            return False
        if serves(resident.plan, ticket.subject, ticket.options):
            ticket.needs_room = False
            if resident.has_room:
                self._grant(ticket, resident)
            return False
        ticket.needs_room = True
        if resident.is_idle:
            self.roster.evict(resident, "other load options are asked for", now)
        elif ticket.starves_at <= now and resident.state is RunnerState.READY:
            self.roster.evict(resident, "a request with other load options waited too long", now)
        return False

    def _settle_without(self, ticket: Ticket, now: float, *, may_start: bool) -> bool:
        """Cases 7 to 10: the model has no runner."""
        ceilings = self.budget.ceilings()
        choices = plans(ticket.subject, ticket.options, self.defaults)
        placed = [(plan, demand, place(demand, ceilings)) for plan, demand in choices]
        plan, demand, placement = next((one for one in placed if one[2] is not None), placed[-1])
        if placement is None:
            text = explain_misfit(demand, self.budget)
            self._refuse(ticket, DoesNotFit(f"{ticket.subject.name} {text}"))
            return False
        if not may_start or self.roster.in_state(*COMING):
            return False
        if not self._has_place(ticket, now):
            return True
        if not self.budget.fits(placement.amounts):
            self._make_room(ticket, placement.amounts, now)
            return True
        self.roster.start(ticket.subject, plan, demand, placement, now)
        ticket.needs_room = False
        return False

    def _has_place(self, ticket: Ticket, now: float) -> bool:
        """Return whether one more model may be loaded; if not, make one leave."""
        maximum = self.scheduling.models_loaded_max
        maximum = maximum or MODELS_LOADED_AUTO * len(self.budget.devices)
        if len(self.residents) < maximum:
            return True
        ticket.needs_room = True
        if not self.roster.in_state(*LEAVING):
            idle = self.roster.idle()
            if idle:
                oldest = min(idle, key=lambda r: (r.idle_since, r.runner))
                self.roster.evict(oldest, f"{ticket.subject.name} needs its place", now)
            elif ticket.starves_at <= now:
                self._drain_a_busy_one(ticket, now)
        return False

    def _make_room(self, ticket: Ticket, needed: Amounts, now: float) -> None:
        """Make runners leave until *needed* fits, if it can be known to help.

        1. Some are leaving already: their memory may be enough, wait.
        2. Enough idle ones: evict the fewest.
        3. Only together with busy ones: wait, and when waiting took too long, drain one.
        """
        ticket.needs_room = True
        if self.roster.in_state(*LEAVING):
            return
        idle = self.roster.idle()
        victims = choose_victims(idle, needed, self.budget)
        for victim in victims or ():
            self.roster.evict(
                victim,
                f"{ticket.subject.name} needs {format_bytes(needed[HOST])}, "
                f"{format_bytes(max(self.budget.free_bytes(HOST), 0))} are free",
                now,
            )
        if victims is None and ticket.starves_at <= now:
            self._drain_a_busy_one(ticket, now)

    def _drain_a_busy_one(self, ticket: Ticket, now: float) -> None:
        ready = self.roster.in_state(RunnerState.READY)
        if ready:
            fewest = min(ready, key=lambda r: (len(r.leases), r.runner))
            self.roster.evict(fewest, f"{ticket.subject.name} waited too long for room", now)

    def _share_cores(self) -> None:
        """Let the runners that are used share the cores: together they never use more.

        An idle runner keeps what it had, since its threads sleep. Each gets one at least, and never
        more than its plan says; one alone gets that.
        """
        busy = [r for r in self.residents.values() if r.leases and r.state in SERVING]
        for resident in busy:
            share = max(self.defaults.n_cores // len(busy), 1)
            n_threads = resident.plan.n_threads
            if len(busy) > 1:
                n_threads = min(n_threads, share)
            if n_threads != resident.n_threads:
                resident.n_threads = n_threads
                self.roster.orders.append(AssignThreads(resident.runner, n_threads))

    # Orders

    def _grant(self, ticket: Ticket, resident: Resident) -> None:
        self.line.answer(ticket, TicketEvent.GRANTED)
        # Of the names that share the weights, the last one used is the one that people look for.
        resident.subject = ticket.subject
        resident.leases.add(ticket.id)
        if ticket.healing.is_on_trial:
            resident.on_trial = ticket.id
        resident.idle_since = math.inf
        if ticket.keep_alive_s is not None:
            resident.keep_alive_s = ticket.keep_alive_s
        self.roster.orders.append(Grant(ticket.id, resident.runner))

    def _refuse(self, ticket: Ticket, error: OllamadError) -> None:
        self.line.answer(ticket, TicketEvent.REFUSED)
        self.roster.orders.append(Refuse(ticket.id, error))
