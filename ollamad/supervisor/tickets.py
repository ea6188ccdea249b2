"""Tickets: each request's claim and its machine, and the bounded line in which they wait."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from typing import Final

from ollamad.errors import ProtocolBroken
from ollamad.modelinfo import WeightsId
from ollamad.options import LoadOptions
from ollamad.supervisor.events import Subject, TicketId
from ollamad.supervisor.healing import HealingRecord


class TicketState(enum.Enum):
    """What became of a claim."""

    WAITING = "waiting"
    GRANTED = "granted"
    REFUSED = "refused"
    CLOSED = "closed"


class TicketEvent(enum.Enum):
    """What can happen to a claim."""

    GRANTED = "granted"
    REFUSED = "refused"
    LOST = "lost"
    """The runner it was granted has died, and it wants another one."""
    GONE = "gone"


TRANSITIONS: Final[Mapping[TicketState, Mapping[TicketEvent, TicketState]]] = {
    TicketState.WAITING: {
        TicketEvent.GRANTED: TicketState.GRANTED,
        TicketEvent.REFUSED: TicketState.REFUSED,
        TicketEvent.GONE: TicketState.CLOSED,
    },
    TicketState.GRANTED: {
        TicketEvent.LOST: TicketState.WAITING,
        TicketEvent.GONE: TicketState.CLOSED,
    },
    TicketState.REFUSED: {TicketEvent.GONE: TicketState.CLOSED},
    TicketState.CLOSED: {TicketEvent.GONE: TicketState.CLOSED},
}


def advance(state: TicketState, event: TicketEvent) -> TicketState:
    """Return the state after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ProtocolBroken(f"a ticket that is {state.name} cannot be {event.name}") from None


@dataclasses.dataclass(slots=True)
class Ticket:
    """One request's claim to a runner of a model."""

    id: TicketId
    subject: Subject
    options: LoadOptions
    keep_alive_s: float | None
    starves_at: float
    """From when on busy runners may be ordered to drain for it."""
    state: TicketState = TicketState.WAITING
    needs_room: bool = False
    """It waits for memory or for its model to be reloaded, not just for a load to end."""
    healing: HealingRecord = dataclasses.field(default_factory=HealingRecord)
    lost_at: float = -math.inf
    """When its last runner died."""

    @property
    def is_back(self) -> bool:
        """It had a runner before."""
        return self.lost_at > -math.inf

    @property
    def weights_id(self) -> WeightsId:
        """The weights it wants to use."""
        return self.subject.weights_id


class TicketLine:
    """All open tickets; the waiting ones in the order of their arrival."""

    def __init__(self) -> None:
        self._open: dict[TicketId, Ticket] = {}
        self._waiting: dict[TicketId, Ticket] = {}

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def waiting(self) -> list[Ticket]:
        """Return those who wait, first come first."""
        return list(self._waiting.values())

    def waiting_for(self, weights_id: WeightsId) -> Iterator[Ticket]:
        """Yield those who wait for these weights, first come first."""
        return (t for t in self.waiting() if t.weights_id == weights_id)

    def add(self, ticket: Ticket) -> None:
        """Put a new ticket at the end of the line."""
        if ticket.id in self._open:
            raise ProtocolBroken(f"ticket {ticket.id} arrived twice")
        self._open[ticket.id] = self._waiting[ticket.id] = ticket

    def put_back(self, ticket_id: TicketId, now: float) -> Ticket | None:
        """Put a granted ticket to the front of the line, behind those put back before it.

        Its request is in the middle of an answer: it has waited its turn already, and the line's
        limit does not count for it. Returns it, or `None` if it is not open any more.
        """
        ticket = self._open.get(ticket_id)
        if ticket is None:
            return None
        ticket.state = advance(ticket.state, TicketEvent.LOST)
        ticket.lost_at = now
        others = self._waiting
        front = {t.id: t for t in others.values() if t.is_back}
        self._waiting = {**front, ticket.id: ticket, **others}
        return ticket

    def granted(self, ticket_id: TicketId) -> Ticket | None:
        """Return a ticket that has a runner."""
        ticket = self._open.get(ticket_id)
        return ticket if ticket is not None and ticket.state is TicketState.GRANTED else None

    def answer(self, ticket: Ticket, event: TicketEvent) -> None:
        """Take a waiting ticket out of the line with its answer."""
        ticket.state = advance(ticket.state, event)
        del self._waiting[ticket.id]
        if ticket.state is TicketState.REFUSED:
            del self._open[ticket.id]

    def close(self, ticket_id: TicketId) -> Ticket | None:
        """Forget a ticket and return it, with the state it had. `None` if it is not open."""
        self._waiting.pop(ticket_id, None)
        return self._open.pop(ticket_id, None)
