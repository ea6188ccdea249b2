"""Whose turn it is: between clients, between models, by priority and by waiting."""

from __future__ import annotations

import dataclasses

import pytest

from ollamad.config import RunnerConfig, SchedulingConfig
from ollamad.errors import QueueFull
from ollamad.modelpolicy import ModelPolicy
from ollamad.runners.states import RunnerState
from ollamad.supervisor.commands import Command, Grant, NoteKind, StartRunner, StopRunner
from ollamad.supervisor.core import RETRY_AFTER_MAX_S, Core
from ollamad.supervisor.events import RequestGone, Subject, TicketId, UnloadAsked
from ollamad.supervisor.residents import LEASES_BEYOND_SLOTS
from ollamad.units import GIB
from tests.unit.supervisor.playing import (
    GEMMA,
    LLAMA,
    QWEN,
    R1,
    R2,
    kinds,
    load,
    notes,
    orders,
    refusal,
)
from tests.values import a_core, a_subject, arrival

SEATS = 1 + LEASES_BEYOND_SLOTS


def full_core(*, scheduling: SchedulingConfig | None = None, clients: str = "aaa") -> Core:
    """A core with a model of one slot, all of whose seats are taken by these clients."""
    assert len(clients) == SEATS
    core = a_core(runner=RunnerConfig(n_slots=1), scheduling=scheduling)
    for number, client in enumerate(clients, start=1):
        core.handle(arrival(number, LLAMA, client=client), 0)
        load(core, R1, 0)
    return core


def granted(commands: list[Command]) -> list[int]:
    return [command.ticket for command in commands if isinstance(command, Grant)]


def served(core: Core, *, now: float = 10) -> list[int]:
    """End the requests in the order in which they sit down; return the order of the others."""
    order: list[int] = []
    seated = list(range(1, SEATS + 1))
    while seated:
        newcomers = granted(core.handle(RequestGone(TicketId(seated.pop(0))), now))
        order += newcomers
        seated += newcomers
    return order


def prioritised(subject: Subject, priority: int) -> Subject:
    return dataclasses.replace(subject, policy=ModelPolicy(priority=priority))


def test_one_client_is_served_in_the_order_of_arrival() -> None:
    core = full_core()
    for number in (4, 5, 6):
        core.handle(arrival(number, LLAMA, client="a"), 2)

    assert served(core) == [4, 5, 6]


def test_a_client_with_many_requests_does_not_keep_another_waiting() -> None:
    core = full_core(clients="aaa")
    for number in range(4, 24):
        core.handle(arrival(number, LLAMA, client="a"), 2)
    core.handle(arrival(24, LLAMA, client="b"), 3)

    assert granted(core.handle(RequestGone(TicketId(1)), 4)) == [24]


def test_clients_with_many_requests_take_turns() -> None:
    core = full_core(clients="aba")
    for number in range(4, 8):
        core.handle(arrival(number, LLAMA, client="a"), 2)
    for number in range(8, 12):
        core.handle(arrival(number, LLAMA, client="b"), 2)

    clients = ["a" if ticket < 8 else "b" for ticket in served(core)]

    assert all(abs(clients[:n].count("a") - clients[:n].count("b")) <= 1 for n in range(8))


def test_who_holds_less_of_a_model_goes_first() -> None:
    core = full_core(clients="aab")
    core.handle(arrival(4, LLAMA, client="a"), 2)
    core.handle(arrival(5, LLAMA, client="c"), 2)
    core.handle(arrival(6, LLAMA, client="b"), 2)

    assert served(core)[0] == 5


def test_clients_that_left_leave_nothing_behind() -> None:
    core = full_core()
    for number in range(10, 20):
        core.handle(arrival(number, LLAMA, client=f"client {number}"), 2)
    for number in [*range(10, 20), 1, 2, 3]:
        core.handle(RequestGone(TicketId(number)), 3)

    assert core.line._standings == {}


def test_the_higher_priority_goes_first() -> None:
    core = full_core()
    core.handle(arrival(4, LLAMA), 2)
    core.handle(arrival(5, prioritised(LLAMA, 1)), 3)

    assert served(core) == [5, 4]


def test_waiting_makes_up_for_a_lower_priority() -> None:
    limits = SchedulingConfig(ageing_s=10, starvation_s=1000)
    core = full_core(scheduling=limits)
    core.handle(arrival(4, LLAMA), 2)
    core.handle(arrival(5, prioritised(LLAMA, 2)), 21)

    assert [t.id for t in core.line.in_turn(21.9, 10)] == [5, 4]
    assert [t.id for t in core.line.in_turn(22, 10)] == [4, 5]


def test_the_more_important_model_is_loaded_first() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    core.handle(arrival(2, QWEN), 1)
    core.handle(arrival(3, prioritised(GEMMA, 1)), 2)

    after = load(core, R1, 3)

    assert [c.name for c in after if isinstance(c, StartRunner)] == [GEMMA.name]


def test_an_unimportant_model_leaves_before_an_important_one() -> None:
    core = a_core(memory_bytes=4 * GIB)
    for number, (subject, runner) in enumerate([(prioritised(LLAMA, 1), R1), (QWEN, R2)], start=1):
        core.handle(arrival(number, subject), number)
        load(core, runner, number, subject)
        core.handle(RequestGone(TicketId(number)), number)

    evicting = core.handle(arrival(3, a_subject(name="two", weights_bytes=2 * GIB)), 60)

    assert orders(evicting) == [StopRunner(R2)]


def test_a_model_that_was_just_loaded_is_spared_while_another_one_can_leave() -> None:
    core = a_core(memory_bytes=4 * GIB, scheduling=SchedulingConfig(min_residence_s=30))
    large = a_subject(name="large", weights_bytes=2 * GIB)
    for number, (subject, runner) in enumerate([(large, R1), (LLAMA, R2)], start=1):
        core.handle(arrival(number, subject), 20 * number)
        load(core, runner, 20 * number, subject)
        core.handle(RequestGone(TicketId(number)), 20 * number)

    # The small one would be the cheaper victim, but it came a moment ago.
    evicting = core.handle(arrival(3, QWEN), 60)

    assert orders(evicting) == [StopRunner(R1)]


def test_a_loaded_model_serves_those_who_waited_before_it_is_evicted() -> None:
    core = a_core(memory_bytes=4 * GIB)
    core.handle(arrival(1, LLAMA), 0)
    core.handle(arrival(2, prioritised(GEMMA, 9)), 1)

    ready = load(core, R1, 2)

    assert kinds(ready) == [Grant]


def test_a_model_unloaded_while_it_loads_serves_those_who_wait_for_it_first() -> None:
    core = a_core()
    core.handle(arrival(1, LLAMA), 0)
    core.handle(UnloadAsked(LLAMA.weights_id), 1)

    assert load(core, R1, 2) == [Grant(TicketId(1), R1)]
    assert orders(core.handle(RequestGone(TicketId(1)), 3)) == [StopRunner(R1)]


def test_a_starving_request_evicts_the_cheapest_set_and_no_more() -> None:
    core = a_core(memory_bytes=4 * GIB)
    core.handle(arrival(1, LLAMA), 0)
    load(core, R1, 1)
    core.handle(arrival(2, QWEN), 2)
    load(core, R2, 3, QWEN)
    core.handle(arrival(3, QWEN), 4)

    core.handle(arrival(4, a_subject(name="two", weights_bytes=2 * GIB)), 5)
    core.handle(None, 5 + core.scheduling.starvation_s)

    states = {r.subject.name: r.state for r in core.residents.values()}
    assert states == {LLAMA.name: RunnerState.DRAINING, QWEN.name: RunnerState.READY}


@pytest.mark.parametrize(("lease_s", "retry_after_s"), [(0, 4.5), (10, 5.5), (10_000, 60)])
def test_a_refused_request_is_told_when_the_line_will_have_moved(
    lease_s: float, retry_after_s: float
) -> None:
    """An answer is guessed to take 5 s; each one that has ended moves that by a tenth."""
    core = full_core(scheduling=SchedulingConfig(queue_length_max=1))
    core.handle(RequestGone(TicketId(1)), lease_s)
    core.handle(arrival(4, LLAMA), lease_s)
    core.handle(arrival(5, LLAMA), lease_s)

    refused = refusal(core.handle(arrival(6, LLAMA), lease_s))

    assert isinstance(refused, QueueFull)
    assert refused.retry_after_s == pytest.approx(retry_after_s)
    assert refused.retry_after_s <= RETRY_AFTER_MAX_S


def test_the_first_in_the_line_that_is_full_elsewhere_may_come_back_soon() -> None:
    core = full_core(scheduling=SchedulingConfig(queue_length_max=1))
    core.handle(arrival(4, LLAMA), 1)

    assert refusal(core.handle(arrival(5, QWEN), 1)).retry_after_s == 1  # type: ignore[attr-defined]


def test_a_request_that_must_wait_is_told_with_its_place_and_why() -> None:
    core = full_core()

    first = core.handle(arrival(4, LLAMA), 2)
    second = core.handle(arrival(5, LLAMA), 2)

    assert [note.fields["place"] for note in notes(first + second, NoteKind.QUEUED)] == [1, 2]
    assert core.line.waiting()[0].waits_for == "a seat: 3 requests on 1 slots"
