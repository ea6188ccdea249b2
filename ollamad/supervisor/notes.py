"""What the kernel says of runners, requests and devices: the words and numbers. Pure."""

from __future__ import annotations

import logging

from ollamad.errors import OllamadError
from ollamad.gpu.devices import SeenDevice
from ollamad.supervisor.commands import Note, NoteKind
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.residents import Resident
from ollamad.supervisor.restart import FailureHistory
from ollamad.supervisor.tickets import Ticket
from ollamad.units import format_bytes


def of_runner(
    kind: NoteKind,
    resident: Resident,
    words: str,
    level: int = logging.INFO,
    **fields: object,
) -> Note:
    """Return a note about a runner. A `{}` in *words* is the model's name."""
    name = resident.subject.name
    about = {"model": name, "runner": resident.runner}
    return Note(kind, words.replace("{}", name), {**about, **fields}, level)


def loading(resident: Resident) -> Note:
    """A load begins."""
    plan, n_bytes = resident.plan, resident.demand.total_bytes
    words = f"loading {{}} (needs {format_bytes(n_bytes)}, {plan.n_slots} slots of {plan.n_ctx} "
    return of_runner(
        NoteKind.LOADING,
        resident,
        words + "tokens)",
        demand_bytes=n_bytes,
        devices=tuple(resident.placement.amounts),
        fraction=0.0,
    )


def progress(resident: Resident) -> Note:
    """A load gets on."""
    return of_runner(
        NoteKind.LOADING,
        resident,
        f"{{}} is loaded to {resident.progress:.0%}",
        logging.DEBUG,
        fraction=resident.progress,
    )


def ready(resident: Resident) -> Note:
    """A load is over."""
    plan, n_bytes = resident.plan, resident.held_bytes
    words = f"{{}} is ready ({format_bytes(n_bytes)}, {plan.n_slots} slots of {plan.n_ctx} tokens)"
    return of_runner(
        NoteKind.READY,
        resident,
        words,
        memory_bytes=n_bytes,
        estimated_bytes=resident.demand.total_bytes,
        seconds=resident.ready_at - resident.started_at,
    )


def retrying(resident: Resident, error: OllamadError, margin: float) -> Note:
    """A load ran out of memory and is tried again."""
    words = "{} ran out of memory while it was loaded and is tried once more with more room"
    return of_runner(
        NoteKind.RETRYING, resident, words, logging.WARNING, reason=error.message, margin=margin
    )


def failed(
    kind: NoteKind, resident: Resident, error: OllamadError, history: FailureHistory
) -> Note:
    """A runner failed."""
    return of_runner(
        kind,
        resident,
        f"{{}} failed: {error.message}",
        logging.ERROR,
        failures=len(history.failed_at),
        reason=error.message,
    )


def cooling(resident: Resident, history: FailureHistory, now: float) -> Note:
    """A model failed too often."""
    left_s = history.cools_until - now
    return of_runner(
        NoteKind.COOLING,
        resident,
        f"{{}} failed {len(history.failed_at)} times and is not started again for {left_s:.0f} s",
        logging.WARNING,
        seconds=left_s,
        reason=history.last_reason,
    )


def evicting(resident: Resident, why: str) -> Note:
    """A runner is ordered to leave."""
    n_leases = len(resident.leases)
    return of_runner(
        NoteKind.EVICTING, resident, f"evicting {{}}: {why}", leases=n_leases, reason=why
    )


def stopping(resident: Resident, why: str) -> Note:
    """A runner is stopped, whoever uses it."""
    return of_runner(
        NoteKind.STOPPING,
        resident,
        f"stopping {{}} with {len(resident.leases)} requests: {why}",
        logging.WARNING,
        leases=len(resident.leases),
        reason=why,
    )


def unloaded(resident: Resident, *, after_s: float | None = None) -> Note:
    """A runner is gone; *after_s* if its memory did not come back in that time."""
    if after_s is None:
        return of_runner(NoteKind.UNLOADED, resident, "{} is unloaded")
    words = f"the memory of {{}} did not come back within {after_s:g} s; going on without it"
    return of_runner(NoteKind.UNLOADED, resident, words, logging.WARNING, seconds=after_s)


def pinned(resident: Resident) -> Note:
    """An administrator has said whether a model stays."""
    words = "{} stays until it is unpinned" if resident.is_pinned else "{} may leave again"
    return of_runner(NoteKind.PINNED, resident, words, is_pinned=resident.is_pinned)


def device(one: SeenDevice, turn: str) -> Note:
    """A device came, was lost, or has another health."""
    words = f"{one.facts.name} ({one.facts.device}) is {turn}" + (f": {one.why}" if one.why else "")
    level = logging.INFO if turn in {"there", "healthy"} else logging.WARNING
    fields = {"device": one.facts.device, "health": turn, "reason": one.why}
    return Note(NoteKind.DEVICE, words, fields, level)


def daemon(state: DaemonState) -> Note:
    """The daemon is in another state."""
    return Note(NoteKind.DAEMON, f"the daemon is {state.value}", {"state": state.value})


def healed(resident: Resident, ticket: Ticket, n_tokens: int, pause_s: float) -> Note:
    """A request has got something from another runner than the one that it began with."""
    words = f"healed: a request to {{}} goes on after {n_tokens} tokens and {pause_s:.1f} s"
    return of_runner(
        NoteKind.HEALED,
        resident,
        words,
        client=ticket.client,
        tokens=n_tokens,
        seconds=pause_s,
        attempt=ticket.healing.n_healed,
    )


def blamed(ticket: Ticket, error: OllamadError) -> Note:
    """A request is refused because runners die of it."""
    name, n_deaths = ticket.subject.name, ticket.healing.n_deaths
    words = f"a request to {name} is refused: {n_deaths} runners in a row ended under it"
    fields = {"model": name, "client": ticket.client, "reason": error.message}
    return Note(NoteKind.REFUSED, words, fields, logging.WARNING)


def refused(ticket: Ticket, error: OllamadError) -> Note:
    """A request is refused. Whoever asked is told; the log needs it for a search only."""
    name, reason = ticket.subject.name, error.message
    fields = {"model": name, "client": ticket.client, "reason": reason}
    words = f"refused a request for {name}: {reason}"
    return Note(NoteKind.REFUSED, words, fields, logging.DEBUG)


def queued(ticket: Ticket, place: int) -> Note:
    """A request waits, as the *place*-th."""
    name = ticket.subject.name
    fields = {"model": name, "client": ticket.client, "place": place, "reason": ticket.waits_for}
    words = f"a request for {name} waits as number {place}: {ticket.waits_for}"
    return Note(NoteKind.QUEUED, words, fields, logging.DEBUG)
