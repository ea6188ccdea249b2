"""What becomes of one waiting ticket: the decision tree of the kernel, and nothing but it. Pure.

`decide` looks and says; `supervisor.core` does what it says. The same code answers an administrator
who asks what would happen, so that an explanation cannot differ from the deed.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from ollamad.config import SchedulingConfig
from ollamad.errors import DoesNotFit, Draining, OllamadError
from ollamad.gpu.budget import Amounts, Budget
from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement, PlacementRules, explain_misfit
from ollamad.runners.protocol import LoadPlan
from ollamad.runners.states import RunnerState
from ollamad.supervisor.compat import PlanDefaults, plans, rules_for, serves
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.eviction import choose_victims
from ollamad.supervisor.residents import COMING, LEAVING, Resident, loads_on
from ollamad.supervisor.roster import Roster
from ollamad.supervisor.tickets import Ticket
from ollamad.units import format_bytes

MODELS_LOADED_AUTO: Final = 3
"""Models loaded at once for each GPU, or without one, when nothing else is configured: Ollama's
number."""
DRAINING_RETRY_S: Final = 10.0
"""After how long to try again at a daemon that takes no work."""

PlaceFunction = Callable[[MemoryDemand, Mapping[DeviceId, int], PlacementRules], Placement | None]
"""Says where a model goes when each device has so much room: `gpu.placement.place`."""


class Verdict(enum.Enum):
    """What becomes of a ticket now."""

    GRANT = "grant"
    JOIN = "join"
    """Its model's runner will serve it: it is coming, or all its seats are taken."""
    START = "start"
    EVICT = "evict"
    """Others leave first."""
    WAIT = "wait"
    REFUSE = "refuse"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a model would be loaded, and where."""

    plan: LoadPlan
    demand: MemoryDemand
    placement: Placement


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict, what it is about, and why."""

    verdict: Verdict
    why: str
    """In words: what is waited for, or what is done to whom."""
    resident: Resident | None = None
    choice: Choice | None = None
    victims: tuple[Resident, ...] = ()
    error: OllamadError | None = None
    needs_room: bool = False
    """It waits for others to leave, and may have them leave when it has waited for too long."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Situation:
    """All that a decision looks at, at one moment, and what earlier tickets have claimed of it."""

    state: DaemonState
    roster: Roster
    budget: Budget
    scheduling: SchedulingConfig
    defaults: PlanDefaults
    place: PlaceFunction
    now: float
    claimed: dict[DeviceId, int] = dataclasses.field(default_factory=dict)
    """Memory that earlier tickets wait for: no later one may take it."""
    n_places_claimed: int = 0
    weights_claimed: set[str] = dataclasses.field(default_factory=set)
    lines: list[str] | None = None
    """What was found on the way, for an explanation."""

    @property
    def places_max(self) -> int:
        """How many models may be loaded."""
        automatic = MODELS_LOADED_AUTO * max(self.roster.inventory.n_gpus, 1)
        return self.scheduling.models_loaded_max or automatic

    def room(self, giving_back: Sequence[Resident] = ()) -> dict[DeviceId, int]:
        """Return what is free of each device when these have left, less what others claim."""
        room = self.budget.free()
        for resident in giving_back:
            for device, n_bytes in self.budget.held_by(resident.runner).items():
                room[device] += n_bytes
        for device, n_bytes in self.claimed.items():
            if device in room:
                room[device] -= n_bytes
        return room

    def ceilings(self, weights_id: str) -> dict[DeviceId, int]:
        """Return what could ever be had of each device: pinned models do not leave."""
        ceilings = self.budget.ceilings()
        for resident in self.pinned(weights_id):
            for device, n_bytes in self.budget.held_by(resident.runner).items():
                ceilings[device] -= n_bytes
        return ceilings

    def pinned(self, weights_id: str) -> list[Resident]:
        """Return the models other than this one that stay."""
        return [
            resident
            for resident in self.roster.residents.values()
            if resident.is_pinned
            and resident.state not in LEAVING
            and resident.weights_id != weights_id
        ]

    def claim(self, ticket: Ticket, placement: Placement) -> None:
        """Keep for *ticket* what it waits for."""
        for device, n_bytes in placement.amounts.items():
            self.claimed[device] = self.claimed.get(device, 0) + n_bytes
        self.n_places_claimed += 1
        self.weights_claimed.add(ticket.weights_id)

    def say(self, line: str) -> None:
        """Note a step, if an explanation is asked for."""
        if self.lines is not None:
            self.lines.append(line)


def decide(ticket: Ticket, at: Situation, starves_at: float) -> Decision:
    """Return what becomes of *ticket* now.

    1. The daemon takes no work: refuse.
    2. Its model has a compatible runner with room for one more lease: grant.
    3. Its model's runner is coming, or full, and compatible: join it.
    4. Its model's runner is leaving: wait until it is gone.
    5. Its model's runner is incompatible: it must leave first.
    6. The model cools after failures: refuse, with the reason. Its restart is put off: wait.
    7. It can never fit: refuse, with the numbers; nobody is evicted for it.
    8. Another model is being loaded where it would go: wait.
    9. It fits as well as it ever will: start.
    10. Some are leaving, and that is enough: wait.
    11. It fits when idle runners leave: evict the cheapest that are enough.
    12. It has waited for too long: make the cheapest leave, busy or not.
    13. Only busy ones could make room: wait.
    """
    if at.state is not DaemonState.SERVING:
        error = Draining(
            "the daemon is draining and takes no new requests", retry_after_s=DRAINING_RETRY_S
        )
        return Decision(verdict=Verdict.REFUSE, why=error.message, error=error)
    resident = at.roster.of(ticket.weights_id)
    if resident is not None:
        at.say(f"{resident.subject.name} has a runner that is {resident.state.value}")
        return _with_runner(resident, ticket, at, starves_at)
    at.say("it has no runner")
    return _without_runner(ticket, at, starves_at)


def _with_runner(resident: Resident, ticket: Ticket, at: Situation, starves_at: float) -> Decision:
    """Cases 2 to 5."""
    name = ticket.subject.name
    if resident.state in LEAVING:
        return _wait(f"the runner of {name} is {resident.state.value}; it comes anew after that")
    if serves(resident.plan, ticket.subject, ticket.options):
        seats = f"{len(resident.leases)} requests on {resident.plan.n_slots} slots"
        if resident.has_room:
            return Decision(verdict=Verdict.GRANT, why=seats, resident=resident)
        why = f"{name} is being loaded" if resident.state in COMING else f"a seat: {seats}"
        return Decision(verdict=Verdict.JOIN, why=why, resident=resident)
    at.say("other load options are asked for than it was loaded with")
    if (refusal := _refusal(ticket, at)) is not None:
        return refusal
    if resident.is_idle:
        return _evict([resident], "other load options are asked for")
    if starves_at <= at.now and resident.state is RunnerState.READY:
        return _evict([resident], "a request with other load options waited too long")
    return _wait(f"{name} is in use with other load options", needs_room=True)


def _refusal(ticket: Ticket, at: Situation) -> Decision | None:
    """Return a refusal if *ticket*'s wish can never be met."""
    found = _best(ticket, at)
    return found if isinstance(found, Decision) else None


def _without_runner(ticket: Ticket, at: Situation, starves_at: float) -> Decision:
    """Cases 6 to 13."""
    name, failures = ticket.subject.name, at.roster.failures
    if (error := failures.cooling(ticket.subject, at.now)) is not None:
        return Decision(verdict=Verdict.REFUSE, why=error.message, error=error)
    best = _best(ticket, at)
    if isinstance(best, Decision):
        return best
    put_off_s = failures.put_off_until(ticket.weights_id) - at.now
    if put_off_s > 0:
        return _wait(f"{name} failed lately; it is started again in {put_off_s:.1f} s", best)
    if ticket.weights_id in at.weights_claimed:
        return _wait(f"an earlier request for {name} with other load options", best)
    leaving = at.roster.in_state(LEAVING)
    if failures.is_retrying(ticket.weights_id) and not all(r.leases for r in leaving):
        at.claim(ticket, best.placement)
        return _wait(f"{name} ran out of memory; others leave before it is tried again", best)
    return _make_room(ticket, best, leaving, at, starves_at)


def _make_room(
    ticket: Ticket, best: Choice, leaving: Sequence[Resident], at: Situation, starves_at: float
) -> Decision:
    """Cases 8 to 13: it could be loaded as *best* says, if nobody else were there."""
    name, rules = ticket.subject.name, rules_of(ticket, at)
    n_residents = len(at.roster.residents) + at.n_places_claimed

    def placed(gone: Sequence[Resident]) -> Placement | None:
        if n_residents - len(gone) >= at.places_max:
            return None
        placement = _place(ticket, best.demand, at.room(gone), rules, at)
        is_as_good = placement and placement.n_gpu_layers >= best.placement.n_gpu_layers
        return placement if is_as_good else None

    def is_enough(victims: Sequence[Resident]) -> bool:
        return placed([*leaving, *victims]) is not None

    if (placement := placed(())) is not None:
        decision = _start_beside_loads(ticket, best, placement, rules, at)
        if decision.verdict is not Verdict.START:
            at.claim(ticket, placement)
        return decision
    needs = f"{name} needs {_amounts(best.placement.amounts)}, {_amounts(at.room())} free, "
    needs += f"{n_residents} of {at.places_max} places taken"
    at.say(needs)
    if leaving and is_enough(()):
        names = ", ".join(resident.subject.name for resident in leaving)
        decision = _wait(f"{names} to be gone", best, needs_room=True)
    else:
        victims, why = _victims(is_enough, at), needs
        if victims is None and starves_at <= at.now:
            victims, why = _victims(is_enough, at, also_busy=True), f"{name} waited too long"
        if victims:
            decision = _evict(victims, why, best)
        else:
            decision = _wait("room: " + needs, best, needs_room=True)
    at.claim(ticket, best.placement)
    return decision


def _victims(
    is_enough: Callable[[Sequence[Resident]], bool], at: Situation, *, also_busy: bool = False
) -> list[Resident] | None:
    candidates = [
        resident
        for resident in at.roster.residents.values()
        if resident.state is RunnerState.READY
        and not resident.is_pinned
        and (also_busy or not resident.leases)
    ]
    return choose_victims(candidates, is_enough, at.now, at.scheduling.min_residence_s)


def _best(ticket: Ticket, at: Situation) -> Choice | Decision:
    """Return how it would be loaded if nobody else were there, or the refusal if not even then.

    Of several plans that can be met, the one with the most layers on GPUs: more slots are worth
    less than that.
    """
    name, rules = ticket.subject.name, rules_of(ticket, at)
    ceilings = at.ceilings(ticket.weights_id)
    best: Choice | None = None
    demand: MemoryDemand | None = None
    for plan, demand in plans(ticket.subject, ticket.options, at.defaults):
        placement = _place(ticket, demand, ceilings, rules, at)
        if placement is None:
            continue
        if best is None or placement.n_gpu_layers > best.placement.n_gpu_layers:
            best = Choice(plan=plan, demand=demand, placement=placement)
    pinned = at.pinned(ticket.weights_id)
    if best is not None and len(pinned) < at.places_max:
        at.say(f"it needs {format_bytes(best.demand.total_bytes)} and could have "
               f"{_amounts(ceilings)}; best is {_amounts(best.placement.amounts)} with "
               f"{best.placement.n_gpu_layers} layers on GPUs")  # fmt: skip
        return best
    if best is not None:
        text = f"cannot be loaded: all {at.places_max} places are taken by pinned models"
    else:
        assert demand is not None  # noqa: S101 - there is a plan for every ticket
        names: dict[Hashable, str] = {
            resident.runner: resident.subject.name for resident in at.roster.residents.values()
        }
        text = explain_misfit(demand, at.budget, names, rules)
        if pinned:
            text += "; pinned models stay: " + ", ".join(r.subject.name for r in pinned)
    error = DoesNotFit(f"{name} {text}")
    at.say(f"it can never be loaded as asked: {text}")
    return Decision(verdict=Verdict.REFUSE, why=error.message, error=error)


def _start_beside_loads(
    ticket: Ticket, best: Choice, placement: Placement, rules: PlacementRules, at: Situation
) -> Decision:
    """Cases 8 and 9: it fits at *placement*, or elsewhere with as many layers on GPUs."""
    loading = at.roster.in_state(COMING)
    taken = frozenset[DeviceId]().union(*(resident.loads_on for resident in loading))
    if not taken.isdisjoint(loads_on(placement)):
        room = {d: n for d, n in at.room().items() if d == HOST or d not in taken}
        other = _place(ticket, best.demand, room, rules, at)
        if (
            other is None
            or other.n_gpu_layers < best.placement.n_gpu_layers
            or not taken.isdisjoint(loads_on(other))
        ):
            names = ", ".join(resident.subject.name for resident in loading)
            return _wait(f"{names} to be loaded first", best)
        placement = other
    choice = dataclasses.replace(best, placement=placement)
    where = _amounts(placement.amounts)
    return Decision(verdict=Verdict.START, why=f"it is loaded into {where}", choice=choice)


def _place(
    ticket: Ticket,
    demand: MemoryDemand,
    room: Mapping[DeviceId, int],
    rules: PlacementRules,
    at: Situation,
) -> Placement | None:
    """Place a demand with the margin that earlier loads have taught."""
    margin = at.roster.failures.margin(ticket.weights_id)
    if margin == 1.0:
        return at.place(demand, room, rules)
    placement = at.place(demand, {d: math.floor(n / margin) for d, n in room.items()}, rules)
    if placement is None:
        return None
    amounts = {d: math.floor(n * margin) for d, n in placement.amounts.items()}
    return dataclasses.replace(placement, amounts=amounts)


def rules_of(ticket: Ticket, at: Situation) -> PlacementRules:
    """Return what restricts where *ticket*'s model may go: its policy, then its options."""
    devices = (one.facts for one in at.roster.inventory.devices)
    return rules_for(ticket.subject, ticket.options, devices)


def _wait(what_for: str, choice: Choice | None = None, *, needs_room: bool = False) -> Decision:
    return Decision(verdict=Verdict.WAIT, why=what_for, choice=choice, needs_room=needs_room)


def _evict(victims: Sequence[Resident], why: str, choice: Choice | None = None) -> Decision:
    return Decision(
        verdict=Verdict.EVICT, why=why, victims=tuple(victims), choice=choice, needs_room=True
    )


def _amounts(amounts: Amounts) -> str:
    """Return bytes by device in words."""
    texts = [
        format_bytes(max(n_bytes, 0)) + ("" if device == HOST else f" of {device}")
        for device, n_bytes in amounts.items()
    ]
    return " and ".join(texts) or "nothing"
