"""Tickets: each request's claim and its machine, and the bounded line in which they take turns."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Mapping
from typing import Final

from ollamad.errors import ProtocolBroken
from ollamad.modelinfo import WeightsId
from ollamad.modelpolicy import ModelPolicy
from ollamad.options import LoadOptions
from ollamad.supervisor.events import Subject, TicketId
from ollamad.supervisor.healing import HealingRecord

Wish = tuple[WeightsId, str, tuple[str, ...], ModelPolicy, LoadOptions]
"""Weights, the files that hold them and their adapters, and what they are to be loaded with."""


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
    """One request's claim to a runner of a model. Times are seconds of the core's clock."""

    id: TicketId
    subject: Subject
    options: LoadOptions
    keep_alive_s: float | None = None
    client: str = ""
    """Who asks; requests of several clients take turns."""
    arrived_at: float = 0.0
    starves_at: float = math.inf
    """From when on busy runners may be ordered to drain for it."""
    state: TicketState = TicketState.WAITING
    granted_at: float = math.inf
    waits_for: str = ""
    """What it waits for, in words."""
    number: int = 0
    """Its place in the order of arrival."""
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

    @property
    def is_own(self) -> bool:
        """Nobody asked for it: the kernel itself wants the model loaded."""
        return self.id < 0

    @property
    def wish(self) -> Wish:
        """What it asks for. Tickets of one wish are answered alike."""
        of = self.subject
        return of.weights_id, of.model_path, of.adapter_paths, of.policy, self.options

    def priority(self, now: float, ageing_s: float) -> int:
        """Return its model's priority, one higher for every *ageing_s* that it has waited."""
        return self.subject.policy.priority + int((now - self.arrived_at) / ageing_s)


@dataclasses.dataclass(slots=True)
class _Standing:
    """What one client has of one model."""

    n_open: int = 0
    n_granted: int = 0
    served: int = 0
    """When it was last granted something, as a number of that grant."""


class TicketLine:
    """All open tickets, and whose turn it is among those that wait."""

    def __init__(self) -> None:
        self._open: dict[TicketId, Ticket] = {}
        self._waiting: dict[TicketId, Ticket] = {}
        self._standings: dict[tuple[WeightsId, str], _Standing] = {}
        self._numbers = itertools.count(1)

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def waiting(self) -> list[Ticket]:
        """Return those who wait, first come first."""
        return list(self._waiting.values())

    def waiting_for(self, weights_id: WeightsId) -> list[Ticket]:
        """Return those who wait for these weights, first come first."""
        return [t for t in self._waiting.values() if t.weights_id == weights_id]

    def in_turn(self, now: float, ageing_s: float) -> list[Ticket]:
        """Return those who wait, in the order in which they are served.

        1. Those that had a runner before: they are in the middle of an answer.
        2. The higher priority, where waiting makes up for a lower one.
        3. The client that has less of the model: each ticket counts the client's leases and the
           tickets that it has before this one.
        4. The client that was served longer ago.
        5. The earlier arrival.
        """
        if len(self._waiting) < 2:
            return self.waiting()
        places: list[tuple[bool, int, int, int, int, Ticket]] = []
        n_before: dict[tuple[WeightsId, str], int] = {}
        for ticket in self._waiting.values():
            key = ticket.weights_id, ticket.client
            standing = self._standings[key]
            n_before[key] = turn = n_before.get(key, standing.n_granted - 1) + 1
            priority = ticket.priority(now, ageing_s)
            place = -priority, turn, standing.served, ticket.number
            places.append((not ticket.is_back, *place, ticket))
        places.sort(key=lambda place: place[:5])
        return [place[5] for place in places]

    def add(self, ticket: Ticket) -> None:
        """Put a new ticket into the line."""
        if ticket.id in self._open:
            raise ProtocolBroken(f"ticket {ticket.id} arrived twice")
        ticket.number = next(self._numbers)
        self._open[ticket.id] = self._waiting[ticket.id] = ticket
        self._standing(ticket).n_open += 1

    def put_back(self, ticket_id: TicketId, now: float) -> Ticket | None:
        """Put a granted ticket back into the line, whose limit does not count for it.

        Returns it, or `None` if it is not open any more.
        """
        ticket = self._open.get(ticket_id)
        if ticket is None:
            return None
        ticket.state = advance(ticket.state, TicketEvent.LOST)
        ticket.lost_at = now
        self._waiting[ticket.id] = ticket
        self._standing(ticket).n_granted -= 1
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
            self._forget(ticket)
        else:
            standing = self._standing(ticket)
            standing.n_granted += 1
            standing.served = next(self._numbers)

    def close(self, ticket_id: TicketId) -> Ticket | None:
        """Forget a ticket and return it, with the state it had. `None` if it is not open."""
        self._waiting.pop(ticket_id, None)
        ticket = self._open.pop(ticket_id, None)
        if ticket is not None:
            if ticket.state is TicketState.GRANTED:
                self._standing(ticket).n_granted -= 1
            self._forget(ticket)
        return ticket

    def _standing(self, ticket: Ticket) -> _Standing:
        return self._standings.setdefault((ticket.weights_id, ticket.client), _Standing())

    def _forget(self, ticket: Ticket) -> None:
        """One ticket less. Who has none left is forgotten, so that strangers leave nothing."""
        standing = self._standing(ticket)
        standing.n_open -= 1
        if not standing.n_open:
            del self._standings[ticket.weights_id, ticket.client]
