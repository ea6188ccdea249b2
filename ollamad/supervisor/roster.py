"""The roster: which runners there are, and the life of each. Part of the kernel, and as pure.

It takes what happens to runners, keeps their deadlines, reservations and failures, and orders them
started and stopped when the core decides so. Who may use them is the core's.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from typing import assert_never

from ollamad.config import SchedulingConfig
from ollamad.errors import CoolingDown, LoadFailed, LoadTimedOut, OllamadError, RunnerCrashed
from ollamad.errors import RunnerStalled as RunnerStalledError
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.modelinfo import WeightsId
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.states import RunnerEvent, RunnerState
from ollamad.supervisor.commands import Command, Note, StartRunner, StopRunner
from ollamad.supervisor.events import (
    DevicesRead,
    MemoryReturned,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    RunnerLoadFailed,
    RunnerProgress,
    RunnerStalled,
    Subject,
    TicketId,
)
from ollamad.supervisor.residents import COMING, Resident
from ollamad.supervisor.restart import FailureHistory, RestartPolicy
from ollamad.units import format_bytes

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
        on_failed_load: Callable[[Resident, OllamadError], None],
    ) -> None:
        self.scheduling = scheduling
        self.budget = budget
        self.residents: dict[RunnerId, Resident] = {}
        self.orders: list[Command] = []
        """What is to be done, in order; whoever carries it out empties it."""
        self._on_failed_load = on_failed_load
        self._failures: dict[WeightsId, FailureHistory] = {}
        self._runner_ids = map(RunnerId, itertools.count(1))

    # Lookups

    def of(self, weights_id: WeightsId) -> Resident | None:
        """Return the runner that has these weights, if there is one."""
        return next((r for r in self.residents.values() if r.weights_id == weights_id), None)

    def in_state(self, *wanted: RunnerState) -> list[Resident]:
        """Return the runners in one of these states."""
        return [r for r in self.residents.values() if r.state in wanted]

    def idle(self) -> list[Resident]:
        """Return the runners that are ready and that nobody uses."""
        return [r for r in self.residents.values() if r.is_idle]

    def next_deadline(self) -> float:
        """Return when a runner's time is over; infinite if no clock runs."""
        return min(
            (min(r.deadline, r.expires_at) for r in self.residents.values()), default=math.inf
        )

    def cooling(self, subject: Subject, now: float) -> CoolingDown | None:
        """Return why *subject* may not be started yet, or `None` if it may."""
        history = self._failures.get(subject.weights_id)
        until = history.cooling_until(now) if history is not None else None
        if history is None or until is None:
            return None
        return CoolingDown(
            f"{subject.name} failed {len(history.failed_at)} times, last: "
            f"{history.last_reason}; it is not started again for {until - now:.0f} s",
            retry_after_s=until - now,
        )

    # What happens

    def read(self, event: DevicesRead) -> None:
        """Learn what others use, unless a runner of ours comes or goes.

        Then what it uses cannot be told from what others use.
        """
        if all(r.state is RunnerState.READY for r in self.residents.values()):
            for reading in event.readings:
                self.budget.take_reading(reading)

    def take(self, event: OfRunner, now: float) -> None:
        """Take what happened to a runner. A late word from one that is GONE changes nothing."""
        resident = self.residents.get(event.runner)
        if resident is not None:
            self._take(resident, event, now)

    def _take(self, resident: Resident, event: OfRunner, now: float) -> None:
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

    def give_back(self, ticket: TicketId, now: float) -> None:
        """A lease is over. Nothing happens if there is none."""
        for resident in self.residents.values():
            if ticket not in resident.leases:
                continue
            resident.leases.discard(ticket)
            if resident.leases:
                continue
            if resident.state is RunnerState.READY:
                resident.idle_since = now
            elif resident.state is RunnerState.DRAINING:
                self._leave(resident, RunnerEvent.LAST_LEASE_RELEASED)

    def _loaded(self, resident: Resident, event: RunnerLoaded, now: float) -> None:
        resident.advance(RunnerEvent.LOADED)
        resident.memory, resident.idle_since, resident.progress = event.memory, now, 1.0
        self.budget.correct(
            resident.runner,
            {HOST: resident.held_bytes},
            {HOST: event.memory.anonymous_bytes},
        )
        self.note(
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
        history = self._failures.setdefault(
            resident.weights_id, FailureHistory(self._restart_policy)
        )
        history.record(error.message, now)
        self.note(
            f"{resident.subject.name} failed: {error.message}",
            level=logging.ERROR,
            runner=resident.runner,
            failures=len(history.failed_at),
        )
        if was_coming:
            self._on_failed_load(resident, error)

    def _gone(self, resident: Resident) -> None:
        self.budget.release(resident.runner)
        del self.residents[resident.runner]
        self.note(f"{resident.subject.name} is unloaded", runner=resident.runner)

    # Time

    def expire(self, now: float) -> None:
        """Do what is due at *now*: patience that has ended, runners idle for long enough."""
        for resident in list(self.residents.values()):
            if resident.deadline <= now:
                self._timed_out(resident, now)
            elif resident.expires_at <= now:
                self.evict(resident, f"idle for {now - resident.idle_since:.0f} s", now)
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
                self.note(
                    f"{name} is stopped with {len(resident.leases)} requests after "
                    f"{self.scheduling.drain_timeout_s:g} s of draining",
                    level=logging.WARNING,
                )
                self._leave(resident, RunnerEvent.TIMED_OUT)
            case RunnerState.RECLAIMING:
                self.note(
                    f"the memory of {name} did not come back within "
                    f"{self.scheduling.reclaim_timeout_s:g} s; going on without it",
                    level=logging.WARNING,
                )
                resident.advance(RunnerEvent.TIMED_OUT)
                self._gone(resident)
            case _:
                resident.deadline = math.inf

    # Orders

    def start(
        self,
        subject: Subject,
        plan: LoadPlan,
        demand: MemoryDemand,
        placement: Placement,
        now: float,
    ) -> None:
        """Reserve what the runner needs, and order it started. It must fit."""
        resident = Resident(
            runner=next(self._runner_ids),
            subject=subject,
            plan=plan,
            demand=demand,
            placement=placement,
            keep_alive_s=self.scheduling.keep_alive_s,
            deadline=now + self.scheduling.start_timeout_s,
        )
        self.budget.reserve(resident.runner, placement.amounts)
        self.residents[resident.runner] = resident
        self.note(
            f"loading {subject.name} (needs {format_bytes(demand.total_bytes)}, "
            f"{plan.n_slots} slots of {plan.n_ctx} tokens)",
            runner=resident.runner,
            demand_bytes=demand.total_bytes,
        )
        memory_bytes = placement.amounts.get(HOST, 0)
        self.orders.append(StartRunner(resident.runner, subject.name, plan, memory_bytes))

    def evict(self, resident: Resident, why: str, now: float) -> None:
        """Make a READY runner leave: at once if it is idle, else when its leases are back."""
        self.note(
            f"evicting {resident.subject.name}: {why}",
            runner=resident.runner,
            leases=len(resident.leases),
        )
        resident.advance(RunnerEvent.EVICT_ORDERED)
        if resident.leases:
            resident.deadline = now + self.scheduling.drain_timeout_s
        else:
            self._leave(resident, RunnerEvent.LAST_LEASE_RELEASED)

    def unload(self, weights_id: WeightsId) -> None:
        """Let the runner of these weights leave as soon as nobody uses it."""
        for resident in self.residents.values():
            if resident.weights_id == weights_id:
                resident.keep_alive_s = 0.0

    def unload_all(self) -> None:
        """Let every runner leave as soon as nobody uses it; stop the loads nobody can use."""
        for resident in self.residents.values():
            resident.keep_alive_s = 0.0
            if resident.state in COMING:
                self._leave(resident, RunnerEvent.STOP_ORDERED)

    def _leave(self, resident: Resident, event: RunnerEvent) -> None:
        resident.advance(event)
        self.orders.append(StopRunner(resident.runner))

    def note(self, message: str, level: int = logging.INFO, **fields: object) -> None:
        """Say a decision, with its numbers."""
        self.orders.append(Note(message, fields, level))

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
