from __future__ import annotations

import itertools

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.modelinfo import WeightsId
from ollamad.options import LoadOptions
from ollamad.supervisor.events import TicketId
from ollamad.supervisor.tickets import (
    TRANSITIONS,
    Ticket,
    TicketEvent,
    TicketLine,
    TicketState,
    advance,
)
from tests.values import a_subject

S, E = TicketState, TicketEvent
LEGAL = {
    (S.WAITING, E.GRANTED): S.GRANTED,
    (S.WAITING, E.REFUSED): S.REFUSED,
    (S.WAITING, E.GONE): S.CLOSED,
    (S.GRANTED, E.LOST): S.WAITING,
    (S.GRANTED, E.GONE): S.CLOSED,
    (S.REFUSED, E.GONE): S.CLOSED,
    (S.CLOSED, E.GONE): S.CLOSED,
}


def a_ticket(number: int, name: str = "llama:8b") -> Ticket:
    return Ticket(
        id=TicketId(number),
        subject=a_subject(name=name),
        options=LoadOptions(),
        keep_alive_s=None,
        starves_at=30.0,
    )


def a_line(*tickets: Ticket) -> TicketLine:
    line = TicketLine()
    for ticket in tickets:
        line.add(ticket)
    return line


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_each_event_in_each_state_does_what_the_design_says_or_is_refused(
    state: TicketState, event: TicketEvent
) -> None:
    if (state, event) in LEGAL:
        assert advance(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(ProtocolBroken, match=f"{state.name} cannot be {event.name}"):
            advance(state, event)


def test_every_state_has_a_row_and_leaving_is_legal_in_each() -> None:
    assert set(TRANSITIONS) == set(S)
    assert all(row[E.GONE] is S.CLOSED for row in TRANSITIONS.values())


def test_those_who_wait_keep_the_order_of_their_arrival() -> None:
    first, other, second = a_ticket(3), a_ticket(2, "gemma:4b"), a_ticket(1)
    line = a_line(first, other, second)

    assert line.waiting() == [first, other, second]
    assert list(line.waiting_for(WeightsId("llama:8b"))) == [first, second]
    assert line.n_waiting == 3


@pytest.mark.parametrize(("event", "state"), [(E.GRANTED, S.GRANTED), (E.REFUSED, S.REFUSED)])
def test_an_answered_ticket_waits_no_more(event: TicketEvent, state: TicketState) -> None:
    ticket, other = a_ticket(1), a_ticket(2)
    line = a_line(ticket, other)

    line.answer(ticket, event)

    assert ticket.state is state
    assert line.waiting() == [other]


@pytest.mark.parametrize("first", [E.GRANTED, E.REFUSED])
@pytest.mark.parametrize("second", [E.GRANTED, E.REFUSED])
def test_a_ticket_is_answered_once(first: TicketEvent, second: TicketEvent) -> None:
    ticket = a_ticket(1)
    line = a_line(ticket)
    line.answer(ticket, first)

    with pytest.raises(ProtocolBroken):
        line.answer(ticket, second)


@pytest.mark.parametrize(
    ("answer", "is_open"), [(None, True), (E.GRANTED, True), (E.REFUSED, False)]
)
def test_closing_tells_what_the_ticket_had_and_is_idempotent(
    answer: TicketEvent | None, is_open: bool
) -> None:
    ticket = a_ticket(1)
    line = a_line(ticket)
    if answer is not None:
        line.answer(ticket, answer)
    state = ticket.state

    closed = line.close(ticket.id)

    assert (closed is ticket) is is_open
    assert ticket.state is state
    assert line.close(ticket.id) is None
    assert line.n_waiting == 0


def test_a_line_may_be_answered_while_it_is_walked() -> None:
    line = a_line(*(a_ticket(n) for n in range(4)))

    for ticket in line.waiting():
        line.answer(ticket, E.GRANTED)

    assert line.n_waiting == 0


def test_a_ticket_arrives_once_even_after_it_was_granted() -> None:
    ticket = a_ticket(1)
    line = a_line(ticket)
    line.answer(ticket, E.GRANTED)

    with pytest.raises(ProtocolBroken, match="arrived twice"):
        line.add(a_ticket(1))
