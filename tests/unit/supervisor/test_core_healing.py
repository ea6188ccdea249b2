"""The core when a runner dies under its requests: who waits where, who is granted or refused."""

from __future__ import annotations

import logging

import pytest

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import CoolingDown, QueueFull, RunnerCrashed
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import (
    Command,
    Grant,
    Note,
    NoteKind,
    Refuse,
    StartRunner,
    StopRunner,
)
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import (
    MemoryReturned,
    RequestContinues,
    RequestGone,
    RequestServedAgain,
    RunnerExited,
    RunnerId,
    RunnerStalled,
    TicketId,
)
from ollamad.supervisor.healing import Part
from ollamad.units import GIB
from tests.unit.supervisor.playing import GEMMA, LLAMA, R1, R2, R3, kinds, load, orders
from tests.values import a_core, arrival

T1, T2, T3, T4 = (TicketId(n) for n in range(1, 5))
CRASH = RunnerCrashed("the model's runner ended: killed by SIGSEGV")


def a_busy_core(n_requests: int = 2, **limits: int) -> Core:
    """Return a core whose one runner serves tickets 1 to *n_requests*, at time 1."""
    core = a_core(scheduling=SchedulingConfig(**limits), runner=RunnerConfig(n_slots=2))
    core.handle(arrival(1, LLAMA), now=0)
    told = load(core, R1, now=1)
    for number in range(2, n_requests + 1):
        told += orders(core.handle(arrival(number, LLAMA), now=1))
    assert granted(told) == list(range(1, n_requests + 1))
    return core


def die(core: Core, runner: RunnerId, now: float, **parts: Part) -> list[Command]:
    """Let a runner die with requests in hand (`t1=Part.SERVED`), and its memory return."""
    told = core.handle(RunnerExited(runner, "killed by SIGSEGV"), now)
    for name, part in parts.items():
        told += core.handle(RequestContinues(TicketId(int(name[1:])), part, CRASH), now)
    return orders([*told, *core.handle(MemoryReturned(runner), now)])


def granted(commands: list[Command]) -> list[TicketId]:
    return [command.ticket for command in commands if isinstance(command, Grant)]


def refused(commands: list[Command]) -> dict[TicketId, str]:
    return {c.ticket: c.error.message for c in commands if isinstance(c, Refuse)}


def test_a_lost_request_starts_its_model_anew_and_is_granted_there() -> None:
    core = a_busy_core(1)

    told = die(core, R1, 2, t1=Part.SERVED)

    assert kinds(told) == [StartRunner]
    assert load(core, R2, 4) == [Grant(T1, R2)]


def test_nothing_is_granted_on_the_runner_that_died() -> None:
    core = a_busy_core(1)
    core.handle(RunnerExited(R1, "killed"), 2)

    assert orders(core.handle(RequestContinues(T1, Part.SERVED, CRASH), 2)) == []
    assert [t.id for t in core.line.waiting()] == [T1]


def test_lost_requests_come_before_those_who_wait_in_the_order_of_their_loss() -> None:
    core = a_busy_core(4)  # All seats of two slots.
    for number in (5, 6):
        core.handle(arrival(number, LLAMA), 1)

    die(core, R1, 2, t2=Part.SERVED, t1=Part.SERVED, t3=Part.UNSERVED)

    assert [t.id for t in core.line.in_turn(2, 60)] == [2, 1, 3, 5, 6]


def test_one_on_trial_is_alone_until_it_is_served() -> None:
    core = a_busy_core(2)
    core.handle(arrival(3, LLAMA), 1)
    die(core, R1, 2, t1=Part.SERVED, t2=Part.UNSERVED)

    assert granted(load(core, R2, 4)) == [T1]
    assert granted(core.handle(RequestServedAgain(T1, 5), 5)) == [T2]
    assert granted(core.handle(RequestServedAgain(T2, 0), 6)) == []


def test_one_on_trial_that_leaves_lets_the_others_in() -> None:
    core = a_busy_core(2)
    die(core, R1, 2, t1=Part.SERVED, t2=Part.UNSERVED)
    load(core, R2, 4)

    assert granted(core.handle(RequestGone(T1), 5)) == [T2]


def test_a_lease_that_was_not_in_use_needs_no_trial() -> None:
    core = a_busy_core(2)
    die(core, R1, 2, t1=Part.ABSENT, t2=Part.ABSENT)

    assert granted(load(core, R2, 4)) == [T1, T2]


def test_who_was_in_hand_twice_is_refused_and_the_model_is_not_to_blame() -> None:
    core = a_busy_core(2, restart_failures_max=2)
    die(core, R1, 2, t1=Part.UNSERVED)

    load(core, R2, 4)
    told = die(core, R2, 5, t1=Part.UNSERVED)

    assert "likely cause" in refused(told)[T1]
    assert kinds(told) == [Refuse]
    assert kinds(core.handle(arrival(9, LLAMA), 6)) == [StartRunner]


def test_many_different_requests_that_are_blamed_cool_their_model() -> None:
    core = a_core(scheduling=SchedulingConfig(restart_failures_max=2))
    runner = 0
    for ticket in (1, 2):
        core.handle(arrival(ticket, LLAMA), 0)
        for _ in range(2):
            runner += 1
            load(core, RunnerId(runner), 1)
            die(core, RunnerId(runner), 2, **{f"t{ticket}": Part.UNSERVED})

    (refusal,) = orders(core.handle(arrival(3, LLAMA), 3))
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, CoolingDown)


def test_after_its_attempts_a_request_ends_with_how_its_runner_died() -> None:
    core = a_busy_core(1, heal_attempts_max=1)
    die(core, R1, 2, t1=Part.SERVED)
    load(core, R2, 4)
    core.handle(RequestServedAgain(T1, 5), 5)

    told = die(core, R2, 6, t1=Part.SERVED)

    assert refused(told) == {T1: f"{CRASH.message}; the answer had been continued 1 times already"}


def test_what_a_deadline_stopped_does_not_come_back() -> None:
    limits = SchedulingConfig(starvation_s=5, drain_timeout_s=10)
    core = a_core(memory_bytes=4 * GIB, scheduling=limits)
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    core.handle(arrival(2, GEMMA), 2)
    core.handle(None, 7)
    assert kinds(core.handle(None, 17)) == [StopRunner]

    told = die(core, R1, 18, t1=Part.SERVED)

    assert "stopped to make room" in refused(told)[T1]
    assert [c.name for c in told if isinstance(c, StartRunner)] == [GEMMA.name]


def test_what_a_stalled_runner_had_in_hand_comes_back() -> None:
    core = a_busy_core(1)
    core.handle(RunnerStalled(R1), 60)

    assert kinds(die(core, R1, 61, t1=Part.SERVED)) == [StartRunner]


def test_a_request_that_left_before_its_loss_was_heard_of_is_nobody() -> None:
    core = a_busy_core(1)
    core.handle(RequestGone(T1), 1)

    assert die(core, R1, 2, t1=Part.SERVED) == []
    assert orders(core.handle(RequestServedAgain(T1, 3), 3)) == []


def test_a_full_line_takes_its_own_back_but_no_newcomer() -> None:
    core = a_busy_core(4, queue_length_max=1)
    die(core, R1, 2, t1=Part.SERVED, t2=Part.SERVED, t3=Part.SERVED)

    assert core.line.n_waiting == 3
    (refusal,) = orders(core.handle(arrival(9, LLAMA), 3))
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, QueueFull)


def test_a_lost_request_may_leave_while_it_waits() -> None:
    core = a_busy_core(1)
    core.handle(RunnerExited(R1, "killed"), 2)
    core.handle(RequestContinues(T1, Part.SERVED, CRASH), 2)
    core.handle(RequestGone(T1), 3)

    assert orders(core.handle(MemoryReturned(R1), 4)) == []
    assert core.line.n_waiting == 0


def test_what_was_healed_is_said_with_its_numbers() -> None:
    core = a_busy_core(1)
    die(core, R1, 2, t1=Part.SERVED)
    load(core, R2, 4)

    (note,) = (c for c in core.handle(RequestServedAgain(T1, 50), 5) if isinstance(c, Note))

    assert note.level == logging.INFO
    assert note.kind is NoteKind.HEALED
    assert dict(note.fields).items() >= {"runner": R2, "tokens": 50, "seconds": 3}.items()


@pytest.mark.parametrize("n_deaths", [1, 2])
def test_an_innocent_outlives_the_killer_beside_it(n_deaths: int) -> None:
    core = a_busy_core(2)
    die(core, R1, 2, t1=Part.SERVED, t2=Part.UNSERVED)
    assert granted(load(core, R2, 3)) == [T1]
    core.handle(RequestServedAgain(T1, 5), 4)
    if n_deaths == 1:
        assert granted(core.handle(RequestServedAgain(T2, 0), 5)) == []
        return

    told = die(core, R2, 5, t1=Part.SERVED, t2=Part.UNSERVED)

    assert list(refused(told)) == [T2]
    assert granted(load(core, R3, 6)) == [T1]
    assert core.residents[R3].state is RunnerState.READY
