"""What would happen now if somebody asked for a model, and why: for people. Pure.

It is found by the very code that decides, on a ticket that never enters the line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

from ollamad.gpu.devices import DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan
from ollamad.supervisor.core import Core
from ollamad.supervisor.decisions import Choice, Decision, Verdict, decide
from ollamad.supervisor.events import Subject, TicketId
from ollamad.supervisor.tickets import Ticket, Wish

_NOBODY: Final = TicketId(0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would happen, with its numbers."""

    name: str
    verdict: Verdict
    why: str
    demand: MemoryDemand | None = None
    """What it needs, by kind; `None` where it is not asked, for example while the daemon drains."""
    plan: LoadPlan | None = None
    placement: Placement | None = None
    """Where it is, or would go now, or if others were not there."""
    room: Mapping[DeviceId, int]
    """What is free on each device, in bytes, less what earlier requests wait for."""
    victims: tuple[str, ...] = ()
    """The models that would leave."""
    lines: tuple[str, ...]
    """The way through the decisions, in order, with their numbers."""


def explain(core: Core, subject: Subject, options: LoadOptions, now: float) -> Explanation:
    """Return what would become of a request that comes at *now*. Changes nothing."""
    at = core.situation(now)
    wishes: set[Wish] = set()
    for ticket in core.line.in_turn(now, core.scheduling.ageing_s):
        if ticket.wish not in wishes:
            wishes.add(ticket.wish)
            decide(ticket, at, math.inf)  # For what it claims.
    at.lines = []
    n_before = core.line.n_waiting
    if n_before:
        at.say(f"{n_before} requests wait already")
    newcomer = Ticket(_NOBODY, subject, options, arrived_at=now)
    room = at.room()
    decision = decide(newcomer, at, math.inf)
    at.say(f"{decision.verdict.value}: {decision.why}")
    choice = _choice(decision)
    return Explanation(
        name=subject.name,
        verdict=decision.verdict,
        why=decision.why,
        demand=choice.demand if choice is not None else None,
        plan=choice.plan if choice is not None else None,
        placement=choice.placement if choice is not None else None,
        room=room,
        victims=tuple(victim.subject.name for victim in decision.victims),
        lines=tuple(at.lines),
    )


def _choice(decision: Decision) -> Choice | None:
    """Return how it is loaded, or would be."""
    if decision.choice is not None or decision.resident is None:
        return decision.choice
    of = decision.resident
    return Choice(plan=of.plan, demand=of.demand, placement=of.placement)
