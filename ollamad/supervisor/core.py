"""The decision kernel: who runs now. Ordinary synchronous Python.

`handle(event, now)` applies one event, then settles: it walks the line of waiting requests once
and gives every order that has become possible. `None` means that time has passed. The core never
awaits and reads no clock, device or process; `supervisor.loop` is its only caller. What becomes of
a ticket is said by `supervisor.decisions`; the lives of runners are the roster's.

Invariants (checked by the property tests):
- the reservations on a device never exceed its budget when they are made;
- a runner is stopped while leased only by a deadline, a stall, a failed process, a lost device or
  an administrator's force;
- every ticket gets exactly one answer, unless it left before;
- when all have left and time has passed, nothing is resident but pinned models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

from ollamad.config import SchedulingConfig
from ollamad.errors import OllamadError, QueueFull, RunnerCrashed
from ollamad.gpu.budget import Budget
from ollamad.gpu.placement import place
from ollamad.modelinfo import WeightsId
from ollamad.supervisor import daemonstate, notes
from ollamad.supervisor.commands import (
    AssignThreads,
    Command,
    GiveSign,
    Grant,
    Refuse,
)
from ollamad.supervisor.compat import PlanDefaults, serves, with_placement
from ollamad.supervisor.daemonstate import DaemonEvent, DaemonState
from ollamad.supervisor.decisions import Decision, PlaceFunction, Situation, Verdict, decide
from ollamad.supervisor.events import (
    DevicesSeen,
    DrainAsked,
    Event,
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
    RunnerId,
    SignAsked,
    TicketId,
    UnloadAsked,
)
from ollamad.supervisor.healing import Fate, Part
from ollamad.supervisor.residents import SERVING, Resident
from ollamad.supervisor.roster import Roster
from ollamad.supervisor.steering import Steering
from ollamad.supervisor.tickets import Ticket, TicketEvent, TicketLine, TicketState, Wish

RETRY_AFTER_MAX_S: Final = 60.0
"""The longest time that a refused request is told to stay away."""
LEASE_GUESS_S: Final = 5.0
"""How long an answer takes, before any was seen."""
LEASE_WEIGHT: Final = 0.1
"""How much of the mean of the leases' durations each new one makes."""
OVERDUE_S: Final = 10.0
"""A deadline that has passed for so long without being handled shows that the kernel hangs."""


class Core:
    """Decides. See the module."""

    def __init__(
        self,
        scheduling: SchedulingConfig,
        defaults: PlanDefaults,
        budget: Budget,
        place: PlaceFunction = place,
    ) -> None:
        self.defaults = defaults
        self.roster = Roster(scheduling, budget, self._refuse_waiters, defaults.learned)
        self.line = TicketLine()
        self.steering = Steering(self.roster)
        self.state = DaemonState.SERVING
        self._place = place
        self._own_tickets = map(TicketId, itertools.count(-1, -1))
        self._lease_s = LEASE_GUESS_S
        self._starves_at = math.inf
        """When the next of those who wait for room has waited for too long."""
        self._now = -math.inf

    @property
    def scheduling(self) -> SchedulingConfig:
        """The limits. May be replaced between two events, when they are read again."""
        return self.roster.scheduling

    @scheduling.setter
    def scheduling(self, limits: SchedulingConfig) -> None:
        self.roster.scheduling = self.roster.failures.scheduling = limits

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
        self.roster.end_patience(now)
        if self.state is not DaemonState.SERVING:
            self.steering.clear(now)
        self._bring_back(now)
        self._settle(now)
        # After settling: one that is not to stay is used first by those who waited for it.
        self.roster.expire(now)
        if isinstance(event, RequestArrived):
            self._note_queued(event.ticket)
        self._share_cores()
        if self.state is DaemonState.DRAINING and not self.residents:
            self.state = daemonstate.advance(self.state, DaemonEvent.ALL_GONE)
        orders, self.roster.orders = self.roster.orders, []
        return orders

    def next_deadline(self) -> float:
        """Return when `handle(None, ...)` will have something to do; infinite if never."""
        put_off = self.roster.failures.next_deadline(self._now) if self.line.n_waiting else math.inf
        return min(self.roster.next_deadline(), self._starves_at, put_off)

    def overdue(self, now: float) -> str:
        """Return what should have been done by *now* and was not; empty if all is well."""
        if (late_s := now - self.next_deadline()) > OVERDUE_S:
            return f"a deadline passed {late_s:.0f} s ago"
        # Asked as of the last event: what has become possible since has a deadline of its own.
        at = self.situation(self._now)
        for ticket in self.line.in_turn(self._now, self.scheduling.ageing_s):
            decision = decide(ticket, at, math.inf)
            is_possible = decision.verdict in {Verdict.GRANT, Verdict.START}
            if is_possible and now - ticket.arrived_at > OVERDUE_S:
                return f"a request for {ticket.subject.name} waits though {decision.why}"
        return ""

    def situation(self, now: float) -> Situation:
        """Return all that a decision at *now* looks at."""
        return Situation(
            state=self.state,
            roster=self.roster,
            budget=self.budget,
            scheduling=self.scheduling,
            defaults=self.defaults,
            place=self._place,
            now=now,
        )

    # Events

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case RequestArrived():
                self._request_arrived(event, now)
            case RequestGone(ticket_id):
                self._request_gone(ticket_id, now)
            case RequestContinues():
                self._request_continues(event, now)
            case RequestServedAgain():
                self._request_served_again(event, now)
            case UnloadAsked() | EvictAsked() | RestartAsked() | ResetAsked() | PinAsked():
                self.steering.take(event, now)
            case PauseAsked():
                self._advance(DaemonEvent.PAUSE_ASKED)
            case ResumeAsked():
                self._advance(DaemonEvent.RESUME_ASKED)
            case DrainAsked():
                self._advance(DaemonEvent.DRAIN_ASKED)
            case SignAsked(number):
                self.roster.orders.append(GiveSign(number))
            case DevicesSeen():
                self.roster.see(event, now)
            case _:
                self.roster.take(event, now)

    def _request_arrived(self, event: RequestArrived, now: float) -> None:
        ticket = Ticket(
            event.ticket,
            event.subject,
            event.options,
            event.keep_alive_s,
            client=event.client,
            arrived_at=now,
            starves_at=now + self.scheduling.starvation_s,
        )
        is_full = self.line.n_waiting >= self.scheduling.queue_length_max
        self.line.add(ticket)
        if is_full and not self._can_grant_at_once(ticket):
            self._refuse(
                ticket,
                QueueFull(
                    "server busy, please try again.  maximum pending requests exceeded",
                    retry_after_s=self._retry_after_s(ticket.weights_id),
                ),
            )

    def _can_grant_at_once(self, ticket: Ticket) -> bool:
        resident = self.roster.of(ticket.weights_id)
        return (
            self.state is DaemonState.SERVING
            and resident is not None
            and resident.has_room
            and serves(resident.plan, ticket.subject, ticket.options)
            and self.line.waiting_for(ticket.weights_id) == [ticket]
        )

    def _retry_after_s(self, weights_id: WeightsId) -> float:
        """Return when those before a newcomer for this model will have been answered, about."""
        resident = self.roster.of(weights_id)
        n_slots = resident.plan.n_slots if resident is not None else 1
        n_before = len(self.line.waiting_for(weights_id)) - 1
        return min(max(self._lease_s * n_before / n_slots, 1.0), RETRY_AFTER_MAX_S)

    def _request_gone(self, ticket_id: TicketId, now: float) -> None:
        self.roster.give_back(ticket_id, now)
        ticket = self.line.close(ticket_id)
        if ticket is not None and ticket.state is TicketState.GRANTED:
            self._lease_s += LEASE_WEIGHT * (now - ticket.granted_at - self._lease_s)

    def _request_continues(self, event: RequestContinues, now: float) -> None:
        """A request has lost its runner.

        1. Its client has left meanwhile: nothing.
        2. The runner was stopped on purpose, and not to be replaced: so ends the request, or it
           would take the room back from those for whom it was made.
        3. It is the likely killer: it ends, and its model is not to blame.
        4. It has gone on often enough: it ends.
        5. It waits before all others, and is settled like everybody.
        """
        ticket = self.line.put_back(event.ticket, now)
        if ticket is None:  # 1
            return
        runner, name, part = self.roster.leased_by(ticket.id), ticket.subject.name, event.part
        self.roster.give_back(ticket.id, now)
        if runner is not None and not runner.has_failed:
            if not (runner.is_replaced or runner.restarts):  # 2
                text = f"{name} was stopped to make room before the answer was complete"
                self._refuse(ticket, RunnerCrashed(text))
                return
            part = Part.ABSENT  # Nobody's fault.
        ticket.starves_at = now + self.scheduling.starvation_s
        record, text = ticket.healing, event.error.message
        match record.judge(part, attempts_max=self.scheduling.heal_attempts_max):
            case Fate.BLAMED:  # 3
                text += f". This request is the likely cause: the runner of {name} ended "
                text += f"{record.n_deaths} times in a row while it was computed"
                error = RunnerCrashed(text, blames_request=True)
                self._refuse(ticket, error)
                self.roster.failures.forgive(ticket.weights_id, record.n_deaths, now)
                self.roster.note(notes.blamed(ticket, error))
            case Fate.SPENT:  # 4
                if record.n_healed:
                    text += f"; the answer had been continued {record.n_healed} times already"
                self._refuse(ticket, RunnerCrashed(text))
            case Fate.GOES_ON:  # 5
                pass

    def _request_served_again(self, event: RequestServedAgain, now: float) -> None:
        """A request survived its new runner, and the runner it: others may join them."""
        ticket, runner = self.line.granted(event.ticket), self.roster.leased_by(event.ticket)
        if ticket is not None and runner is not None:
            ticket.healing.is_on_trial = False
            if runner.on_trial == ticket.id:
                runner.on_trial = None
            self.roster.note(notes.healed(runner, ticket, event.n_tokens, now - ticket.lost_at))

    def _advance(self, event: DaemonEvent) -> None:
        before, self.state = self.state, daemonstate.advance(self.state, event)
        if self.state is not before:
            self.roster.note(notes.daemon(self.state))

    def _refuse_waiters(self, resident: Resident, error: OllamadError) -> None:
        """Tell those who waited for this very load why it failed."""
        for ticket in self.line.waiting_for(resident.weights_id):
            if serves(resident.plan, ticket.subject, ticket.options):
                self._refuse(ticket, error)

    def _bring_back(self, now: float) -> None:
        """Ask for those that left only to be started anew, in nobody's name."""
        departed, self.roster.departed = self.roster.departed, []
        for resident in departed:
            if resident.restarts and self.state is DaemonState.SERVING:
                self.line.add(
                    Ticket(
                        next(self._own_tickets),
                        resident.subject,
                        resident.options,
                        resident.keep_alive_s,
                        arrived_at=now,
                        starves_at=now + self.scheduling.starvation_s,
                    )
                )

    # Decisions

    def _settle(self, now: float) -> None:
        """Answer every waiting ticket that can be answered, whose turn it is first.

        Seats of runners that are ready are taken first: a model must not be evicted for one request
        while another one only has to sit down. Whoever is started or evicted then changes what the
        others wait for, so they are asked again; each time there are fewer to start or evict.
        """
        self._starves_at = math.inf
        if not self.line.n_waiting:
            return
        in_turn = self.line.in_turn(now, self.scheduling.ageing_s)
        at = self.situation(now)
        for ticket in in_turn:
            resident = self.roster.of(ticket.weights_id)
            if resident is not None and resident.has_room:
                decision = decide(ticket, at, math.inf)
                if decision.verdict is Verdict.GRANT:
                    self._carry_out(decision, ticket, now)
        while self._settle_once([t for t in in_turn if t.state is TicketState.WAITING], now):
            pass

    def _settle_once(self, in_turn: Sequence[Ticket], now: float) -> bool:
        """Decide about each ticket. Return whether a runner was started or evicted.

        What a ticket waits for is kept from those after it. Tickets of one wish are answered alike,
        so the first that must wait speaks for the others.
        """
        self._starves_at = math.inf
        starves_at: dict[Wish, float] = {}
        for ticket in in_turn:
            wish = ticket.wish
            starves_at[wish] = min(ticket.starves_at, starves_at.get(wish, math.inf))
        at = self.situation(now)
        decided: dict[Wish, Decision] = {}
        has_changed = False
        for ticket in in_turn:
            wish = ticket.wish
            known = decided.get(wish)
            decision = known or decide(ticket, at, starves_at[wish])
            ticket.waits_for = decision.why
            if known is not None:
                continue
            if decision.needs_room and starves_at[wish] > now:
                self._starves_at = min(self._starves_at, starves_at[wish])
            self._carry_out(decision, ticket, now)
            has_changed |= decision.verdict in {Verdict.START, Verdict.EVICT}
            if decision.verdict is not Verdict.REFUSE:
                decided[wish] = decision
        return has_changed

    def _carry_out(self, decision: Decision, ticket: Ticket, now: float) -> None:
        match decision.verdict:
            case Verdict.GRANT:
                assert decision.resident is not None  # noqa: S101 - it says whose seat it is
                self._grant(ticket, decision.resident, now)
            case Verdict.REFUSE:
                assert decision.error is not None  # noqa: S101 - it says why
                self._refuse(ticket, decision.error)
            case Verdict.EVICT:
                for victim in decision.victims:
                    self.roster.evict(victim, decision.why, now)
            case Verdict.START:
                self._start(decision, ticket, now)
            case Verdict.JOIN | Verdict.WAIT:
                pass

    def _start(self, decision: Decision, ticket: Ticket, now: float) -> None:
        assert decision.choice is not None  # noqa: S101 - it says how
        keep_alive_s = ticket.subject.policy.keep_alive_s
        if keep_alive_s is None:
            keep_alive_s = self.scheduling.keep_alive_s
        self.roster.start(
            Resident(
                runner=self.roster.next_runner(),
                subject=ticket.subject,
                options=ticket.options,
                plan=with_placement(decision.choice.plan, decision.choice.placement),
                demand=decision.choice.demand,
                placement=decision.choice.placement,
                keep_alive_s=keep_alive_s,
                started_at=now,
                since=now,
                is_pinned=self.steering.is_pinned(ticket.subject),
            )
        )

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

    def _grant(self, ticket: Ticket, resident: Resident, now: float) -> None:
        self.line.answer(ticket, TicketEvent.GRANTED)
        ticket.granted_at = now
        # Of the names that share the weights, the last one used is the one that people look for.
        resident.subject = ticket.subject
        resident.is_pinned |= self.steering.is_pinned(ticket.subject)
        if ticket.keep_alive_s is not None:
            resident.keep_alive_s = ticket.keep_alive_s
        if ticket.is_own:
            self.line.close(ticket.id)
            return
        resident.leases.add(ticket.id)
        if ticket.healing.is_on_trial:
            resident.on_trial = ticket.id
        resident.idle_since = math.inf
        self.roster.orders.append(Grant(ticket.id, resident.runner))

    def _refuse(self, ticket: Ticket, error: OllamadError) -> None:
        self.line.answer(ticket, TicketEvent.REFUSED)
        if not ticket.is_own:
            self.roster.orders.append(Refuse(ticket.id, error))
        self.roster.note(notes.refused(ticket, error))

    def _note_queued(self, ticket_id: TicketId) -> None:
        """Say that the newcomer waits, and where in the line."""
        line = self.line.in_turn(self._now, self.scheduling.ageing_s)
        for place_, ticket in enumerate(line, start=1):
            if ticket.id == ticket_id:
                self.roster.note(notes.queued(ticket, place_))
