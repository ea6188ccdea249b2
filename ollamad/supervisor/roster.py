"""The roster: which runners there are, and the life of each. Part of the kernel, and as pure.

It takes what happens to runners and devices, keeps deadlines and reservations, and orders runners
started and stopped when the core decides so. Who may use them is the core's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection
from typing import assert_never

from ollamad.config import SchedulingConfig
from ollamad.errors import LoadFailed, LoadTimedOut, OllamadError, RunnerCrashed
from ollamad.errors import RunnerStalled as RunnerStalledError
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST
from ollamad.gpu.learned import LearnedDemand
from ollamad.gpu.placement import environment_for
from ollamad.modelinfo import WeightsId
from ollamad.runners.states import RunnerEvent, RunnerState
from ollamad.supervisor import notes
from ollamad.supervisor.commands import (
    Command,
    Note,
    NoteKind,
    ReadDevices,
    StartRunner,
    StopRunner,
)
from ollamad.supervisor.compat import learn
from ollamad.supervisor.events import (
    DevicesSeen,
    MemoryReturned,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    RunnerLoadFailed,
    RunnerProgress,
    RunnerStalled,
    TicketId,
)
from ollamad.supervisor.failures import FailureBook
from ollamad.supervisor.inventory import Inventory
from ollamad.supervisor.residents import COMING, Resident

OfRunner = (
    RunnerHello
    | RunnerProgress
    | RunnerLoaded
    | RunnerLoadFailed
    | RunnerStalled
    | RunnerExited
    | MemoryReturned
)
"""What can happen to one runner."""


class Roster:
    """All runners that are not GONE. See the module."""

    def __init__(
        self,
        scheduling: SchedulingConfig,
        budget: Budget,
        tell_waiters: Callable[[Resident, OllamadError], None],
        learned: LearnedDemand,
    ) -> None:
        self.scheduling = scheduling
        self.budget = budget
        self.inventory = Inventory(budget)
        self.failures = FailureBook(scheduling)
        self.residents: dict[RunnerId, Resident] = {}
        self.departed: list[Resident] = []
        """Those that are GONE; whoever has seen them empties it."""
        self.orders: list[Command] = []
        """What is to be done, in order; whoever carries it out empties it."""
        self.tell_waiters = tell_waiters
        self._learned = learned
        self._runner_ids = map(RunnerId, itertools.count(1))

    # Lookups

    def of(self, weights_id: WeightsId) -> Resident | None:
        """Return the runner that has these weights, if there is one."""
        return next((r for r in self.residents.values() if r.weights_id == weights_id), None)

    def leased_by(self, ticket: TicketId) -> Resident | None:
        """Return the runner that a ticket has a lease on."""
        return next((r for r in self.residents.values() if ticket in r.leases), None)

    def in_state(self, wanted: Collection[RunnerState]) -> list[Resident]:
        """Return the runners in one of these states."""
        return [r for r in self.residents.values() if r.state in wanted]

    def next_deadline(self) -> float:
        """Return when a runner's time is over; infinite if no clock runs."""
        return min(
            (min(r.deadline, r.expires_at) for r in self.residents.values()), default=math.inf
        )

    # What happens to devices

    def see(self, event: DevicesSeen, now: float) -> None:
        """Learn which devices there are now. Runners on one that is lost or not trusted leave."""
        changes = self.inventory.take(event, self.residents.values())
        for one in changes.came:
            self.note(notes.device(one, "there"))
        for one in changes.lost:
            self.note(notes.device(one, "lost"))
        for one in changes.turned:
            self.note(notes.device(one, one.health.value))
        for resident in list(self.residents.values()):
            if resident.state is RunnerState.RECLAIMING:
                self._check_returned(resident, now)
            elif any(map(self.inventory.is_lost, resident.gpus)):
                resident.is_replaced = True
                self.stop(resident, "its device is lost", now)
            elif not all(map(self.inventory.is_usable, resident.gpus)):
                self._move(resident, now)

    def _move(self, resident: Resident, now: float) -> None:
        """Let a runner leave a device that is not trusted; the next request starts it elsewhere."""
        resident.is_replaced = True
        if resident.state in COMING:
            self.stop(resident, "its device is not used any more", now)
        elif resident.state is RunnerState.READY:
            self.evict(resident, "its device is not used any more", now)

    def _check_returned(self, resident: Resident, now: float) -> None:
        if resident.unreturned:
            held = self.budget.held_by(resident.runner)
            resident.unreturned = self.inventory.still_holds(resident, held)
            if not resident.unreturned:
                self._returned(resident, now)

    # What happens to runners

    def take(self, event: OfRunner, now: float) -> None:
        """Take what happened to a runner. A late word from one that is GONE changes nothing."""
        resident = self.residents.get(event.runner)
        if resident is not None:
            self._take(resident, event, now)

    def _take(self, resident: Resident, event: OfRunner, now: float) -> None:
        state = resident.state
        match event:
            case RunnerHello() if state is RunnerState.STARTING:
                resident.advance(RunnerEvent.HELLO, now)
                resident.pid = event.pid
                resident.deadline = now + self._load_timeout_s
            case RunnerProgress() if state is RunnerState.LOADING:
                resident.progress = event.fraction
                resident.deadline = now + self._load_timeout_s
                self.note(notes.progress(resident))
            case RunnerLoaded() if state is RunnerState.LOADING:
                self._loaded(resident, event, now)
            case RunnerLoadFailed() if state is RunnerState.LOADING:
                self._load_failed(resident, event, now)
            case RunnerStalled() if state in {RunnerState.READY, RunnerState.DRAINING}:
                error = RunnerStalledError("its engine made no progress")
                self._failed(resident, NoteKind.STALLED, error, now)
                self._leave(resident, RunnerEvent.STALLED, now)
            case RunnerExited() if state not in {RunnerState.RECLAIMING, RunnerState.GONE}:
                self._exited(resident, event, now)
            case MemoryReturned() if state is RunnerState.RECLAIMING and not resident.unreturned:
                self._returned(resident, now)
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

    def give_back(self, ticket: TicketId, now: float) -> None:
        """A lease is over. Nothing happens if there is none."""
        for resident in self.residents.values():
            if ticket not in resident.leases:
                continue
            resident.leases.discard(ticket)
            if resident.on_trial == ticket:
                resident.on_trial = None
            if resident.leases:
                continue
            if resident.state is RunnerState.READY:
                resident.idle_since = now
            elif resident.state is RunnerState.DRAINING:
                self._leave(resident, RunnerEvent.LAST_LEASE_RELEASED, now)

    def _loaded(self, resident: Resident, event: RunnerLoaded, now: float) -> None:
        resident.advance(RunnerEvent.LOADED, now)
        resident.memory, resident.progress = event.memory, 1.0
        resident.ready_at = resident.idle_since = now
        learn(self._learned, resident.plan, resident.demand, event.memory)
        self.failures.loaded(resident.weights_id)
        # A GPU's part stays as it was planned until the driver tells what it is.
        planned = self.budget.held_by(resident.runner)
        self.budget.correct(
            resident.runner,
            {**planned, HOST: resident.host_bytes},
            {**planned, HOST: event.memory.anonymous_bytes},
        )
        self.note(notes.ready(resident))

    def _load_failed(self, resident: Resident, event: RunnerLoadFailed, now: float) -> None:
        """Its load failed. If for want of memory, it is tried once more with more of it."""
        is_tried_again = event.out_of_memory and self.failures.ran_out_of_memory(
            resident.weights_id, now
        )
        if not is_tried_again:
            self._failed(resident, NoteKind.LOAD_FAILED, event.error, now)
            self._leave(resident, RunnerEvent.LOAD_FAILED, now)
            return
        margin = self.failures.margin(resident.weights_id)
        self.note(notes.retrying(resident, event.error, margin))
        self._leave(resident, RunnerEvent.LOAD_FAILED, now)
        for other in list(self.residents.values()):
            shares = not resident.placement.amounts.keys().isdisjoint(other.placement.amounts)
            if other.is_idle and not other.is_pinned and shares:
                self.evict(other, f"{resident.subject.name} ran out of memory", now)

    def _exited(self, resident: Resident, event: RunnerExited, now: float) -> None:
        """The process has ended.

        1. While it was stopping or leaving by itself without leases: as ordered.
        2. Before it was ready: those who wait for this load are told why.
        3. In the middle of work or while idle: a crash. Its requests ask for another runner.
        """
        state = resident.state
        text = f"the model's runner ended: {event.detail}"
        if state in COMING:
            self._failed(resident, NoteKind.LOAD_FAILED, LoadFailed(text), now)
        elif state is RunnerState.READY or (state is RunnerState.DRAINING and resident.leases):
            self._failed(resident, NoteKind.CRASHED, RunnerCrashed(text), now)
        resident.advance(RunnerEvent.EXITED, now)
        resident.deadline = now + self.scheduling.reclaim_timeout_s
        resident.unreturned = self.inventory.unreturned(resident)
        if resident.unreturned:
            self.orders.append(ReadDevices())

    def _failed(self, resident: Resident, kind: NoteKind, error: OllamadError, now: float) -> None:
        """Remember why, and tell those who waited for this very load."""
        resident.has_failed = True
        was_coming = resident.state in COMING
        history = self.failures.record(resident.subject, error.message, now)
        self.note(notes.failed(kind, resident, error, history))
        if history.cooling_until(now) is not None:
            self.note(notes.cooling(resident, history, now))
        if was_coming:
            self.tell_waiters(resident, error)

    def _returned(self, resident: Resident, now: float) -> None:
        resident.advance(RunnerEvent.MEMORY_RETURNED, now)
        self.note(notes.unloaded(resident))
        self._gone(resident)

    def _gone(self, resident: Resident) -> None:
        self.budget.release(resident.runner)
        del self.residents[resident.runner]
        self.departed.append(resident)

    # Time

    def end_patience(self, now: float) -> None:
        """Do what is due at *now* with runners that have been in a state for too long."""
        for resident in list(self.residents.values()):
            if resident.deadline <= now:
                self._timed_out(resident, now)
        self.failures.forget_old(now)

    def expire(self, now: float) -> None:
        """Let go of runners that have been idle for long enough."""
        for resident in list(self.residents.values()):
            if resident.expires_at <= now:
                self.evict(resident, f"idle for {now - resident.idle_since:.0f} s", now)

    def _timed_out(self, resident: Resident, now: float) -> None:
        name = resident.subject.name
        match resident.state:
            case RunnerState.STARTING:
                text = f"the runner of {name} did not start within "
                text += f"{self.scheduling.start_timeout_s:g} s"
                self._failed(resident, NoteKind.LOAD_FAILED, LoadTimedOut(text), now)
                self._leave(resident, RunnerEvent.TIMED_OUT, now)
            case RunnerState.LOADING:
                text = f"loading {name} made no progress for {self._load_timeout_s:g} s"
                self._failed(resident, NoteKind.LOAD_FAILED, LoadTimedOut(text), now)
                self._leave(resident, RunnerEvent.TIMED_OUT, now)
            case RunnerState.DRAINING:
                why = f"it drained for {self.scheduling.drain_timeout_s:g} s"
                self.note(notes.stopping(resident, why))
                self._leave(resident, RunnerEvent.TIMED_OUT, now)
            case RunnerState.RECLAIMING:
                after_s = self.scheduling.reclaim_timeout_s
                self.note(notes.unloaded(resident, after_s=after_s))
                resident.advance(RunnerEvent.TIMED_OUT, now)
                self._gone(resident)
            case _:
                resident.deadline = math.inf

    # Orders

    def start(self, resident: Resident) -> None:
        """Reserve what a new runner needs, and order it started. It must fit."""
        self.budget.reserve(resident.runner, resident.placement.amounts)
        self.residents[resident.runner] = resident
        resident.deadline = resident.started_at + self.scheduling.start_timeout_s
        self.note(notes.loading(resident))
        self.orders.append(
            StartRunner(
                resident.runner,
                resident.subject.name,
                resident.plan,
                environment=self._environment(resident),
                memory_bytes=resident.placement.amounts.get(HOST, 0),
            )
        )

    def _environment(self, resident: Resident) -> dict[str, str]:
        """Return the variables that show a runner its devices. Without GPUs there is no need."""
        has_gpus = any(one.facts.device != HOST for one in self.inventory.devices)
        return environment_for(resident.placement) if has_gpus else {}

    def next_runner(self) -> RunnerId:
        """Return a number for a new runner."""
        return next(self._runner_ids)

    def evict(self, resident: Resident, why: str, now: float) -> None:
        """Make a READY runner leave: at once if it is idle, else when its leases are back."""
        self.note(notes.evicting(resident, why))
        resident.advance(RunnerEvent.EVICT_ORDERED, now)
        if resident.leases:
            resident.deadline = now + self.scheduling.drain_timeout_s
        else:
            self._leave(resident, RunnerEvent.LAST_LEASE_RELEASED, now)

    def stop(self, resident: Resident, why: str, now: float) -> None:
        """Stop a runner at once, whoever uses it, if it is not stopping already."""
        if resident.state in {RunnerState.STOPPING, RunnerState.RECLAIMING}:
            return
        self.note(notes.stopping(resident, why))
        self._leave(resident, RunnerEvent.STOP_ORDERED, now)

    def _leave(self, resident: Resident, event: RunnerEvent, now: float) -> None:
        resident.advance(event, now)
        self.orders.append(StopRunner(resident.runner))

    def note(self, note: Note) -> None:
        """Say something, in the order of what is done."""
        self.orders.append(note)

    @property
    def _load_timeout_s(self) -> float:
        timeout_s = self.scheduling.load_timeout_s
        return timeout_s if timeout_s > 0 else math.inf
