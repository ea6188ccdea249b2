"""The core under random events: what must hold after every step, whatever happens."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import LoadFailed, RunnerCrashed
from ollamad.gpu.devices import HOST, DeviceReading
from ollamad.options import LoadOptions
from ollamad.runners.protocol import MemoryUse
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import Command, Grant, Refuse, StartRunner, StopRunner
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.events import (
    DevicesRead,
    DrainAsked,
    Event,
    MemoryReturned,
    RequestContinues,
    RequestGone,
    RequestServedAgain,
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
from ollamad.supervisor.healing import Part
from ollamad.units import GIB, MIB
from tests.values import a_core, a_subject, arrival

SUBJECTS = [
    a_subject(name="small", weights_bytes=GIB // 2),
    a_subject(name="medium", weights_bytes=GIB),
    a_subject(name="large", weights_bytes=3 * GIB),
    a_subject(name="monster", weights_bytes=40 * GIB),
]
MEMORY_BYTES = 4 * GIB
STEPS = 60
EXAMPLES = 120
"""Together some seven thousand steps, in a few seconds."""


class CoreMachine(RuleBasedStateMachine):
    """Plays the world around a core: clients, processes and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.core = a_core(
            memory_bytes=MEMORY_BYTES,
            scheduling=SchedulingConfig(queue_length_max=6, models_loaded_max=2),
            runner=RunnerConfig(n_slots=1),
        )
        self.now = 0.0
        self.n_tickets = 0
        self.waiting: set[TicketId] = set()
        self.granted: dict[TicketId, RunnerId] = {}
        self.alive: dict[RunnerId, str] = {}
        """Processes that have not exited: `started`, `loading` or `loaded`."""
        self.exited: set[RunnerId] = set()
        self.stop_ordered: set[RunnerId] = set()
        self.back: set[TicketId] = set()
        """Those that wait for another runner: they had one before."""
        self.excused: set[RunnerId] = set()
        """Runners that may be stopped under their leases."""

    def send(self, event: Event | None) -> None:
        leased = {r.runner: set(r.leases) for r in self.core.residents.values()}
        for command in self.core.handle(event, self.now):
            self.carry_out(command, leased)

    def carry_out(self, command: Command, leased: dict[RunnerId, set[TicketId]]) -> None:
        match command:
            case StartRunner(runner):
                assert runner not in self.alive
                self.alive[runner] = "started"
            case StopRunner(runner):
                assert runner in self.core.residents, "a runner that is gone was stopped"
                assert runner not in self.stop_ordered, "a runner was stopped twice"
                still_leased = leased.get(runner, set()) & set(self.granted)
                assert not still_leased or runner in self.excused
                self.stop_ordered.add(runner)
            case Grant(ticket, runner):
                assert ticket in self.waiting, "a ticket was answered twice, or after it left"
                # It may have been ordered to drain since, for a later ticket of the same event;
                # then it drains until this lease is back.
                resident = self.core.residents[runner]
                assert resident.state in {RunnerState.READY, RunnerState.DRAINING}
                assert ticket in resident.leases
                self.waiting.discard(ticket)
                self.granted[ticket] = runner
            case Refuse(ticket):
                assert ticket in self.waiting, "a ticket was answered twice, or after it left"
                self.waiting.discard(ticket)

    @rule(
        subject=st.sampled_from(SUBJECTS),
        n_ctx=st.sampled_from([None, None, None, 2048]),
        keep_alive_s=st.sampled_from([None, None, 0.0, 10.0, math.inf]),
    )
    def arrive(self, subject: object, n_ctx: int | None, keep_alive_s: float | None) -> None:
        self.n_tickets += 1
        ticket = TicketId(self.n_tickets)
        self.waiting.add(ticket)
        event = arrival(
            ticket,
            subject,  # type: ignore[arg-type]
            options=LoadOptions(n_ctx=n_ctx),
            keep_alive_s=keep_alive_s,
        )
        self.send(event)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        everyone = sorted({*self.waiting, *self.granted, TicketId(self.n_tickets + 1)})
        ticket = data.draw(st.sampled_from(everyone))
        self.waiting.discard(ticket)
        self.granted.pop(ticket, None)
        self.send(RequestGone(ticket))

    @rule(data=st.data(), part=st.sampled_from(Part))
    def a_lost_request_continues(self, data: st.DataObject, part: Part) -> None:
        lost = sorted(t for t, runner in self.granted.items() if runner not in self.alive)
        if not lost:
            return
        ticket = data.draw(st.sampled_from(lost))
        del self.granted[ticket]
        self.waiting.add(ticket)
        self.back.add(ticket)
        self.send(RequestContinues(ticket, part, RunnerCrashed("killed")))

    @rule(data=st.data(), n_tokens=st.integers(0, 9))
    def a_request_is_served_again(self, data: st.DataObject, n_tokens: int) -> None:
        if back := sorted(self.back & set(self.granted)):
            self.send(RequestServedAgain(data.draw(st.sampled_from(back)), n_tokens))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def runner_gets_on(self, data: st.DataObject, fails: bool) -> None:
        runner = data.draw(st.sampled_from(sorted(self.alive)))
        match self.alive[runner]:
            case "started":
                self.alive[runner] = "loading"
                self.send(RunnerHello(runner))
            case "loading" if fails:
                self.alive[runner] = "failed"
                self.send(RunnerLoadFailed(runner, LoadFailed("no")))
            case "loading":
                self.alive[runner] = "loaded"
                self.send(RunnerProgress(runner, 0.5))
                resident = self.core.residents.get(runner)
                weights = resident.subject.facts.file_bytes if resident else 0
                memory = MemoryUse(anonymous_bytes=32 * MIB, file_bytes=weights)
                self.send(RunnerLoaded(runner, memory))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def runner_exits(self, data: st.DataObject) -> None:
        runner = data.draw(st.sampled_from(sorted(self.alive)))
        del self.alive[runner]
        self.exited.add(runner)
        self.send(RunnerExited(runner, "killed by SIGKILL"))

    @precondition(lambda self: self.stop_ordered & set(self.alive))
    @rule()
    def stopped_runners_exit(self) -> None:
        for runner in sorted(self.stop_ordered & set(self.alive)):
            del self.alive[runner]
            self.send(RunnerExited(runner, "exit status 0"))
            self.send(MemoryReturned(runner))

    @precondition(lambda self: self.exited)
    @rule()
    def memory_returns(self) -> None:
        self.send(MemoryReturned(self.exited.pop()))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def runner_stalls(self, data: st.DataObject) -> None:
        runner = data.draw(st.sampled_from(sorted(self.alive)))
        self.excused.add(runner)
        self.send(RunnerStalled(runner))

    @rule(index=st.integers(0, len(SUBJECTS) - 1))
    def unload(self, index: int) -> None:
        self.send(UnloadAsked(SUBJECTS[index].weights_id))

    @rule(used_bytes=st.integers(0, GIB))
    def read_devices(self, used_bytes: int) -> None:
        self.send(DevicesRead((DeviceReading(device=HOST, used_bytes=used_bytes),)))

    @rule(seconds=st.sampled_from([0.1, 1.0, 31.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        # A deadline may end the patience with a runner, whoever leases it.
        draining = [r for r in self.core.residents.values() if r.deadline <= self.now]
        self.excused.update(resident.runner for resident in draining)
        self.send(None)

    @rule()
    def the_next_deadline_comes(self) -> None:
        if not math.isinf(deadline := self.core.next_deadline()):
            self.time_passes(max(deadline - self.now, 0))

    @invariant()
    def deadlines_lie_ahead(self) -> None:
        assert self.core.next_deadline() > self.now, "the loop would spin"

    @invariant()
    def nothing_is_reserved_beyond_the_capacity(self) -> None:
        assert self.core.budget.reserved_bytes(HOST) <= MEMORY_BYTES

    @invariant()
    def only_residents_hold_reservations(self) -> None:
        if not self.core.residents:
            assert self.core.budget.reserved_bytes(HOST) == 0

    @invariant()
    def leases_are_on_runners_that_were_ready(self) -> None:
        for resident in self.core.residents.values():
            if resident.state in {RunnerState.STARTING, RunnerState.LOADING}:
                assert not resident.leases

    @invariant()
    def the_line_is_bounded_and_true(self) -> None:
        waiting = {ticket.id for ticket in self.core.line.waiting()}
        assert waiting == self.waiting
        assert len(waiting - self.back) <= self.core.scheduling.queue_length_max

    @invariant()
    def who_is_back_waits_in_front(self) -> None:
        is_back = [ticket.id in self.back for ticket in self.core.line.waiting()]
        assert is_back == sorted(is_back, reverse=True)

    @invariant()
    def a_trial_is_of_one_that_is_there(self) -> None:
        for resident in self.core.residents.values():
            assert resident.on_trial is None or resident.on_trial in resident.leases

    def teardown(self) -> None:
        """When all have left and time has passed, nothing is resident."""
        for ticket in [*self.waiting, *self.granted]:
            self.waiting.discard(ticket)
            self.granted.pop(ticket, None)
            self.send(RequestGone(ticket))
        self.send(DrainAsked())
        for _ in range(200):
            if self.core.state is DaemonState.STOPPED:
                break
            for runner in list(self.alive):
                if runner in self.stop_ordered:
                    del self.alive[runner]
                    self.send(RunnerExited(runner, "exit status 0"))
                    self.send(MemoryReturned(runner))
            if not math.isinf(deadline := self.core.next_deadline()):
                self.now = max(deadline, self.now)
            self.excused.update(self.core.residents)
            self.send(None)
        assert not self.core.residents
        assert self.core.budget.reserved_bytes(HOST) == 0
        assert self.core.state is DaemonState.STOPPED


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(stateful_step_count=STEPS, max_examples=EXAMPLES, deadline=None)
