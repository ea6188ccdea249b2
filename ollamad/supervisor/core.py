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

import itertools
import logging
import math
from typing import Final, assert_never

from ollamad.config import SchedulingConfig
from ollamad.errors import (
    CoolingDown,
    DoesNotFit,
    Draining,
    LoadFailed,
    LoadTimedOut,
    OllamadError,
    QueueFull,
    RunnerCrashed,
)
from ollamad.errors import RunnerStalled as RunnerStalledError
from ollamad.gpu.budget import Amounts, Budget
from ollamad.gpu.devices import HOST
from ollamad.gpu.placement import explain_misfit, place
from ollamad.modelinfo import WeightsId
from ollamad.runners.states import RunnerEvent, RunnerState
from ollamad.supervisor import daemonstate
from ollamad.supervisor.commands import Command, Grant, Note, Refuse, StartRunner, StopRunner
from ollamad.supervisor.compat import PlanDefaults, plans, serves
from ollamad.supervisor.daemonstate import DaemonEvent, DaemonState
from ollamad.supervisor.events import (
    DevicesRead,
    DrainAsked,
    Event,
    MemoryReturned,
    RequestArrived,
    RequestGone,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    RunnerLoadFailed,
    RunnerProgress,
    RunnerStalled,
    TicketId,
    UnloadAsked,
)
from ollamad.supervisor.eviction import choose_victims
from ollamad.supervisor.residents import COMING, LEAVING, Resident
from ollamad.supervisor.restart import FailureHistory, RestartPolicy
from ollamad.supervisor.tickets import Ticket, TicketEvent, TicketLine, TicketState
from ollamad.units import format_bytes

MODELS_LOADED_AUTO: Final = 3
"""Models loaded at once for each device, when nothing else is configured: Ollama's number."""


class Core:
    """Decides. See the module."""

    def __init__(
        self, scheduling: SchedulingConfig, defaults: PlanDefaults, budget: Budget
    ) -> None:
        self.scheduling = scheduling
        """May be replaced between two events, when the configuration is read again."""
        self.defaults = defaults
        self.budget = budget
        self.residents: dict[RunnerId, Resident] = {}
        self.line = TicketLine()
        self.state = DaemonState.SERVING
        self._failures: dict[WeightsId, FailureHistory] = {}
        self._runner_ids = map(RunnerId, itertools.count(1))
        self._commands: list[Command] = []
        self._now = -math.inf

    # What the loop calls

    def handle(self, event: Event | None, now: float) -> list[Command]:
        """Apply *event*, settle, and return what is to be done, in order."""
        self._commands, self._now = [], now
        if event is not None:
            self._apply(event, now)
        self._expire(now)
        self._settle(now)
        if self.state is DaemonState.DRAINING and not self.residents:
            self.state = daemonstate.advance(self.state, DaemonEvent.ALL_GONE)
        return self._commands

    def next_deadline(self) -> float:
        """Return when `handle(None, ...)` will have something to do; infinite if never."""
        deadlines = [
            min(resident.deadline, resident.expires_at) for resident in self.residents.values()
        ]
        # A ticket that starves already waits for an event, not for time.
        deadlines += [
            ticket.starves_at
            for ticket in self.line.waiting()
            if ticket.needs_room and ticket.starves_at > self._now
        ]
        return min(deadlines, default=math.inf)

    # Events

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case RequestArrived():
                self._request_arrived(event, now)
            case RequestGone(ticket_id):
                self._request_gone(ticket_id, now)
            case UnloadAsked(weights_id):
                for resident in self.residents.values():
                    if resident.weights_id == weights_id:
                        resident.keep_alive_s = 0.0
            case DrainAsked():
                self._drain_asked()
            case DevicesRead(readings):
                # While a runner comes or goes, what it uses cannot be told from what others use.
                if all(r.state is RunnerState.READY for r in self.residents.values()):
                    for reading in readings:
                        self.budget.take_reading(reading)
            case _:
                # A late word from a runner that is GONE changes nothing.
                about = self.residents.get(event.runner)
                if about is not None:
                    self._runner_event(about, event, now)

    def _runner_event(
        self,
        resident: Resident,
        event: RunnerHello
        | RunnerProgress
        | RunnerLoaded
        | RunnerLoadFailed
        | RunnerStalled
        | RunnerExited
        | MemoryReturned,
        now: float,
    ) -> None:
        state = resident.state
        match event:
            case RunnerHello() if state is RunnerState.STARTING:
                resident.advance(RunnerEvent.HELLO)
                resident.deadline = now + self._load_timeout_s
            case RunnerProgress() if state is RunnerState.LOADING:
                resident.progress = event.fraction
                resident.deadline = now + self._load_timeout_s
            case RunnerLoaded() if state is RunnerState.LOADING:
                self._loaded(resident, event, now)
            case RunnerLoadFailed() if state is RunnerState.LOADING:
                self._failed(resident, event.error, now)
                self._leave(resident, RunnerEvent.LOAD_FAILED)
            case RunnerStalled() if state in {RunnerState.READY, RunnerState.DRAINING}:
                self._failed(resident, RunnerStalledError("its engine made no progress"), now)
                self._leave(resident, RunnerEvent.STALLED)
            case RunnerExited() if state not in {RunnerState.RECLAIMING, RunnerState.GONE}:
                self._exited(resident, event, now)
            case MemoryReturned() if state is RunnerState.RECLAIMING:
                resident.advance(RunnerEvent.MEMORY_RETURNED)
                self._gone(resident)
            case (
                RunnerHello()
                | RunnerProgress()
                | RunnerLoaded()
                | RunnerLoadFailed()
                | RunnerStalled()
                | RunnerExited()
                | MemoryReturned()
            ):
                pass  # It crossed an order of ours: the runner is on another way already.
            case _:
                assert_never(event)

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

    def _drain_asked(self) -> None:
        self.state = daemonstate.advance(self.state, DaemonEvent.DRAIN_ASKED)
        for resident in self.residents.values():
            resident.keep_alive_s = 0.0
            if resident.state in COMING:
                self._leave(resident, RunnerEvent.STOP_ORDERED)

    def _can_grant_at_once(self, ticket: Ticket) -> bool:
        resident = self._resident_for(ticket.weights_id)
        return (
            resident is not None
            and resident.has_room
            and serves(resident.plan, ticket.subject, ticket.options)
            and next(self.line.waiting_for(ticket.weights_id)) is ticket
        )

    def _request_gone(self, ticket_id: TicketId, now: float) -> None:
        for resident in self.residents.values():
            if ticket_id not in resident.leases:
                continue
            resident.leases.discard(ticket_id)
            if resident.leases:
                continue
            if resident.state is RunnerState.READY:
                resident.idle_since = now
            elif resident.state is RunnerState.DRAINING:
                self._leave(resident, RunnerEvent.LAST_LEASE_RELEASED)
        self.line.close(ticket_id)

    def _loaded(self, resident: Resident, event: RunnerLoaded, now: float) -> None:
        resident.advance(RunnerEvent.LOADED)
        resident.memory, resident.idle_since, resident.progress = event.memory, now, 1.0
        self.budget.correct(
            resident.runner,
            {HOST: resident.held_bytes},
            {HOST: event.memory.anonymous_bytes},
        )
        self._note(
            f"{resident.subject.name} is ready "
            f"({format_bytes(resident.held_bytes)}, {resident.plan.n_slots} slots of "
            f"{resident.plan.n_ctx} tokens)",
            runner=resident.runner,
            memory_bytes=resident.held_bytes,
            estimated_bytes=resident.demand.total_bytes,
        )

    def _exited(self, resident: Resident, event: RunnerExited, now: float) -> None:
        """The process has ended.

        1. While it was stopping or leaving by itself without leases: as ordered.
        2. Before it was ready: those who wait for this load are told why.
        3. In the middle of work or while idle: a crash. Its streams end by themselves.
        """
        state = resident.state
        if state in COMING:
            self._failed(resident, LoadFailed(f"the model's runner ended: {event.detail}"), now)
        elif state is RunnerState.READY or (state is RunnerState.DRAINING and resident.leases):
            self._failed(resident, RunnerCrashed(f"the model's runner ended: {event.detail}"), now)
        resident.advance(RunnerEvent.EXITED)
        resident.deadline = now + self.scheduling.reclaim_timeout_s

    def _failed(self, resident: Resident, error: OllamadError, now: float) -> None:
        """Remember why, and tell those who waited for this very load."""
        was_coming = resident.state in COMING
        resident.failure = error
        history = self._failures.setdefault(
            resident.weights_id, FailureHistory(self._restart_policy)
        )
        history.record(error.message, now)
        self._note(
            f"{resident.subject.name} failed: {error.message}",
            level=logging.ERROR,
            runner=resident.runner,
            failures=len(history.failed_at),
        )
        if was_coming:
            for ticket in self.line.waiting_for(resident.weights_id):
                if serves(resident.plan, ticket.subject, ticket.options):
                    self._refuse(ticket, error)

    def _gone(self, resident: Resident) -> None:
        self.budget.release(resident.runner)
        del self.residents[resident.runner]
        self._note(f"{resident.subject.name} is unloaded", runner=resident.runner)

    # Time

    def _expire(self, now: float) -> None:
        for resident in list(self.residents.values()):
            if resident.deadline <= now:
                self._timed_out(resident, now)
            elif resident.expires_at <= now:
                self._evict(resident, f"idle for {now - resident.idle_since:.0f} s", now)
        for weights_id in [w for w, h in self._failures.items() if h.is_forgotten(now)]:
            del self._failures[weights_id]

    def _timed_out(self, resident: Resident, now: float) -> None:
        name = resident.subject.name
        match resident.state:
            case RunnerState.STARTING:
                text = f"the runner of {name} did not start within "
                text += f"{self.scheduling.start_timeout_s:g} s"
                self._failed(resident, LoadTimedOut(text), now)
                self._leave(resident, RunnerEvent.TIMED_OUT)
            case RunnerState.LOADING:
                text = f"loading {name} made no progress for {self._load_timeout_s:g} s"
                self._failed(resident, LoadTimedOut(text), now)
                self._leave(resident, RunnerEvent.TIMED_OUT)
            case RunnerState.DRAINING:
                self._note(
                    f"{name} is stopped with {len(resident.leases)} requests after "
                    f"{self.scheduling.drain_timeout_s:g} s of draining",
                    level=logging.WARNING,
                )
                self._leave(resident, RunnerEvent.TIMED_OUT)
            case RunnerState.RECLAIMING:
                self._note(
                    f"the memory of {name} did not come back within "
                    f"{self.scheduling.reclaim_timeout_s:g} s; going on without it",
                    level=logging.WARNING,
                )
                resident.advance(RunnerEvent.TIMED_OUT)
                self._gone(resident)
            case _:
                resident.deadline = math.inf

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
        resident = self._resident_for(ticket.weights_id)
        if resident is not None:
            return self._settle_with(resident, ticket, now)
        if (error := self._cooling(ticket, now)) is not None:
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
            self._evict(resident, "other load options are asked for", now)
        elif ticket.starves_at <= now and resident.state is RunnerState.READY:
            self._evict(resident, "a request with other load options waited too long", now)
        return False

    def _settle_without(self, ticket: Ticket, now: float, *, may_start: bool) -> bool:
        """Cases 7 to 10: the model has no runner."""
        choice = None
        for plan, demand in plans(ticket.subject, ticket.options, self.defaults):
            choice = (plan, demand, place(demand))
            if self.budget.could_fit(choice[2].amounts):
                break
        else:
            assert choice is not None  # noqa: S101 - there is always a first plan
            text = explain_misfit(choice[1], self.budget)
            self._refuse(ticket, DoesNotFit(f"{ticket.subject.name} {text}"))
            return False
        plan, demand, placement = choice
        if not may_start or any(r.state in COMING for r in self.residents.values()):
            return False
        if not self._has_place(ticket, now):
            return True
        if not self.budget.fits(placement.amounts):
            self._make_room(ticket, placement.amounts, now)
            return True
        resident = Resident(
            runner=next(self._runner_ids),
            subject=ticket.subject,
            plan=plan,
            demand=demand,
            placement=placement,
            keep_alive_s=self.scheduling.keep_alive_s,
            deadline=now + self.scheduling.start_timeout_s,
        )
        self.budget.reserve(resident.runner, placement.amounts)
        self.residents[resident.runner] = resident
        self._note(
            f"loading {ticket.subject.name} (needs {format_bytes(demand.total_bytes)}, "
            f"{plan.n_slots} slots of {plan.n_ctx} tokens)",
            runner=resident.runner,
            demand_bytes=demand.total_bytes,
        )
        self._commands.append(StartRunner(resident.runner, ticket.subject.name, plan))
        ticket.needs_room = False
        return False

    def _has_place(self, ticket: Ticket, now: float) -> bool:
        """Return whether one more model may be loaded; if not, make one leave."""
        maximum = self.scheduling.models_loaded_max
        maximum = maximum or MODELS_LOADED_AUTO * len(self.budget.devices)
        if len(self.residents) < maximum:
            return True
        ticket.needs_room = True
        if not any(r.state in LEAVING for r in self.residents.values()):
            idle = [r for r in self.residents.values() if r.is_idle]
            if idle:
                oldest = min(idle, key=lambda r: (r.idle_since, r.runner))
                self._evict(oldest, f"{ticket.subject.name} needs its place", now)
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
        if any(r.state in LEAVING for r in self.residents.values()):
            return
        idle = [r for r in self.residents.values() if r.is_idle]
        victims = choose_victims(idle, needed, self.budget)
        for victim in victims or ():
            self._evict(
                victim,
                f"{ticket.subject.name} needs {format_bytes(needed[HOST])}, "
                f"{format_bytes(max(self.budget.free_bytes(HOST), 0))} are free",
                now,
            )
        if victims is None and ticket.starves_at <= now:
            self._drain_a_busy_one(ticket, now)

    def _drain_a_busy_one(self, ticket: Ticket, now: float) -> None:
        ready = [r for r in self.residents.values() if r.state is RunnerState.READY]
        if ready:
            fewest = min(ready, key=lambda r: (len(r.leases), r.runner))
            self._evict(fewest, f"{ticket.subject.name} waited too long for room", now)

    def _cooling(self, ticket: Ticket, now: float) -> CoolingDown | None:
        history = self._failures.get(ticket.weights_id)
        until = history.cooling_until(now) if history is not None else None
        if history is None or until is None:
            return None
        return CoolingDown(
            f"{ticket.subject.name} failed {len(history.failed_at)} times, last: "
            f"{history.last_reason}; it is not started again for {until - now:.0f} s",
            retry_after_s=until - now,
        )

    # Orders

    def _grant(self, ticket: Ticket, resident: Resident) -> None:
        self.line.answer(ticket, TicketEvent.GRANTED)
        ticket.runner = resident.runner
        resident.leases.add(ticket.id)
        resident.idle_since = math.inf
        if ticket.keep_alive_s is not None:
            resident.keep_alive_s = ticket.keep_alive_s
        self._commands.append(Grant(ticket.id, resident.runner))

    def _refuse(self, ticket: Ticket, error: OllamadError) -> None:
        self.line.answer(ticket, TicketEvent.REFUSED)
        self._commands.append(Refuse(ticket.id, error))

    def _evict(self, resident: Resident, why: str, now: float) -> None:
        """Make a READY runner leave: at once if it is idle, else when its leases are back."""
        self._note(
            f"evicting {resident.subject.name}: {why}",
            runner=resident.runner,
            leases=len(resident.leases),
        )
        resident.advance(RunnerEvent.EVICT_ORDERED)
        if resident.leases:
            resident.deadline = now + self.scheduling.drain_timeout_s
        else:
            self._leave(resident, RunnerEvent.LAST_LEASE_RELEASED)

    def _leave(self, resident: Resident, event: RunnerEvent) -> None:
        resident.advance(event)
        self._commands.append(StopRunner(resident.runner))

    def _note(self, message: str, level: int = logging.INFO, **fields: object) -> None:
        self._commands.append(Note(message, fields, level))

    # Lookups

    def _resident_for(self, weights_id: WeightsId) -> Resident | None:
        return next((r for r in self.residents.values() if r.weights_id == weights_id), None)

    @property
    def _load_timeout_s(self) -> float:
        timeout_s = self.scheduling.load_timeout_s
        return timeout_s if timeout_s > 0 else math.inf

    @property
    def _restart_policy(self) -> RestartPolicy:
        return RestartPolicy(
            failures_max=self.scheduling.restart_failures_max,
            window_s=self.scheduling.restart_window_s,
            cooling_s=self.scheduling.cooling_s,
        )
