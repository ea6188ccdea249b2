"""Whether a GPU is trusted with models: a state machine, and the book that keeps it. Pure.

An enum (`DeviceHealth`), a table and `advance`; `HealthBook` turns what the driver reports and
what is read into the table's events. It is conservative both ways: errors that a faulty program
causes never cost anybody a GPU, and a GPU that was faulty is watched before it is trusted again.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final

from ollamad.errors import ProtocolBroken
from ollamad.gpu.devices import DeviceHealth, DeviceId
from ollamad.gpu.probe import GpuEvent, GpuEventKind, GpuReading, GpuSensors, ProbedGpu


class HealthEvent(enum.Enum):
    """What can happen to a device's health."""

    FAULT = "fault"
    """It must not be used."""
    DOUBT = "doubt"
    """Something that may be nothing."""
    SEEN_WELL = "seen well"
    """After a fault, it was read and nothing is wrong."""
    STAYED_WELL = "stayed well"
    """Nothing happened for long enough."""
    RESET = "reset"
    """Somebody vouches for it."""


H, E = DeviceHealth, HealthEvent

TRANSITIONS: Final[Mapping[DeviceHealth, Mapping[HealthEvent, DeviceHealth]]] = {
    H.HEALTHY: {
        E.DOUBT: H.SUSPECT,
        E.FAULT: H.QUARANTINED,
        E.RESET: H.HEALTHY,
    },
    H.SUSPECT: {
        E.DOUBT: H.SUSPECT,
        E.STAYED_WELL: H.HEALTHY,
        E.FAULT: H.QUARANTINED,
        E.RESET: H.HEALTHY,
    },
    H.QUARANTINED: {
        E.DOUBT: H.QUARANTINED,
        E.FAULT: H.QUARANTINED,
        E.SEEN_WELL: H.RECOVERING,
        E.RESET: H.HEALTHY,
    },
    H.RECOVERING: {
        E.DOUBT: H.QUARANTINED,
        E.FAULT: H.QUARANTINED,
        E.STAYED_WELL: H.HEALTHY,
        E.RESET: H.HEALTHY,
    },
}


def advance(health: DeviceHealth, event: HealthEvent) -> DeviceHealth:
    """Return the health after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[health][event]
    except KeyError:
        raise ProtocolBroken(f"a device that is {health.value} cannot take {event.name}") from None


APPLICATION_XIDS: Final[Mapping[int, str]] = {
    13: "a program's kernel failed",
    31: "a program touched memory that is not its own",
    43: "a program's kernel was stopped",
    45: "a program was ended",
    68: "a program's video could not be decoded",
}
"""Faults of programs, not of the GPU: noted, never held against it."""

FAULTY_XIDS: Final[Mapping[int, str]] = {
    48: "an uncorrectable memory error",
    63: "memory was retired",
    64: "memory could not be retired",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "its system processor does not answer",
    120: "its system processor failed",
}
"""Faults of the GPU itself. Any other Xid makes it suspect."""

INSTANCE_XIDS: Final = frozenset({94})
"""Faults that stay within the MIG instance that the driver names; others are the whole GPU's."""

OFF_THE_BUS_XIDS: Final = frozenset({79})
"""After these, being readable means nothing before the driver has looked at the bus anew."""

HEAT_MARGIN_C: Final = 2
"""So near to turning itself off, a GPU is given no more work."""

RELAPSE_FACTOR_MAX: Final = 16
"""A GPU that fails again and again is watched longer each time, up to so many times as long."""

RELAPSE_MEMORY_S: Final = 24 * 3600.0
"""After so long without a fault, the next one counts as the first."""

NOTE_PERIOD_S: Final = 60.0
"""One line about errors of programs for each device and Xid in this time: they come in floods."""

RECORDS_MAX: Final = 512
"""Devices remembered: MIG instances get new UUIDs whenever they are made anew."""

_SEVERITY: Final = (H.HEALTHY, H.SUSPECT, H.RECOVERING, H.QUARANTINED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """How long things take, in seconds."""

    quarantine_s: float = 30.0
    """The least time in quarantine: one fault is reported several times within moments."""
    recovery_s: float = 300.0
    """How long it must stay well after that before it takes models again."""
    suspicion_s: float = 600.0
    """How long after the last doubt a suspect device is taken for healthy."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HealthNews:
    """What a person may want to know: a change of health, or an error of a program."""

    device: DeviceId
    before: DeviceHealth
    after: DeviceHealth
    why: str

    @property
    def is_change(self) -> bool:
        """Whether the health changed, and not only something was noted."""
        return self.before is not self.after


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HealthRecord:
    """What the book says of one device."""

    health: DeviceHealth
    why: str
    """What made it less than healthy; empty if nothing did."""
    since: float
    """When it came into this health, by the caller's clock."""
    n_faults: int
    """Faults since it was last well for `RELAPSE_MEMORY_S`."""
    last_note: str
    """The last error of a program on it; empty for none."""


@dataclasses.dataclass(slots=True)
class _Entry:
    parent: DeviceId | None = None
    health: DeviceHealth = H.HEALTHY
    why: str = ""
    since: float = 0.0
    troubled_at: float = 0.0
    """The last fault or doubt."""
    seen_at: float = 0.0
    is_present: bool = True
    lost_in: int | None = None
    """The session in which it was lost; being read in that session proves nothing."""
    n_faults: int = 0
    uncorrected: int | None = None
    last_note: str = ""
    noted_at: dict[int, float] = dataclasses.field(default_factory=dict)


class HealthBook:
    """The health of every GPU and MIG instance that was ever seen."""

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._entries: dict[DeviceId, _Entry] = {}
        self._session = 0

    # Questions

    def health(self, device: DeviceId, parent: DeviceId | None = None) -> tuple[DeviceHealth, str]:
        """Return the health of a device and why. A MIG instance is no better than its GPU."""
        entries = (self._entries.get(device), self._entries.get(parent) if parent else None)
        known = [entry for entry in entries if entry is not None]
        if not known:
            return H.HEALTHY, ""
        worst = max(known, key=lambda entry: _SEVERITY.index(entry.health))
        return worst.health, worst.why

    def records(self) -> Mapping[DeviceId, HealthRecord]:
        """Return all entries, as they are now."""
        return {
            device: HealthRecord(
                health=entry.health,
                why=entry.why,
                since=entry.since,
                n_faults=entry.n_faults,
                last_note=entry.last_note,
            )
            for device, entry in self._entries.items()
        }

    @property
    def wants_new_session(self) -> bool:
        """Whether a device is lost that only a new session with the driver can bring back."""
        return any(entry.lost_in == self._session for entry in self._entries.values())

    # Events

    def take(self, event: GpuEvent, now: float) -> list[HealthNews]:
        """Enter what the driver reported.

        1. A memory error that was corrected: doubt. One that was not: fault.
        2. An Xid that programs cause: a note.
        3. An Xid of a faulty GPU: fault, of the MIG instance alone if it stays within.
        4. Any other Xid: doubt.
        """
        device = event.device
        if event.kind is GpuEventKind.ECC_SINGLE:  # 1
            return self._trouble(device, E.DOUBT, event.kind.value, now)
        if event.kind is GpuEventKind.ECC_DOUBLE:
            return self._trouble(device, E.FAULT, event.kind.value, now)
        if event.xid in APPLICATION_XIDS:  # 2
            return self._note(event.instance or device, event.xid, now)
        if event.xid in FAULTY_XIDS:  # 3
            if event.xid in INSTANCE_XIDS and event.instance is not None:
                device = event.instance
            if event.xid in OFF_THE_BUS_XIDS:
                self._entry(device, now).lost_in = self._session
            why = f"Xid {event.xid}: {FAULTY_XIDS[event.xid]}"
            return self._trouble(device, E.FAULT, why, now)
        return self._trouble(device, E.DOUBT, f"Xid {event.xid}", now)  # 4

    def observe(self, reading: GpuReading, now: float) -> list[HealthNews]:
        """Enter a reading: who is there, who is not, how hot and how broken."""
        self._session = reading.session
        news: list[HealthNews] = []
        reasons = {lost.device: lost.why for lost in reading.lost if lost.device is not None}
        present = {gpu.facts.device for gpu in reading.gpus}
        for gpu in reading.gpus:
            news += self._observe_one(gpu, now)
        for device, entry in list(self._entries.items()):
            if device in present:
                continue
            if entry.parent in present:  # A MIG instance was taken apart: nobody's fault.
                del self._entries[device]
            else:
                why = reasons.get(device, "it is not there any more")
                news += self._miss(device, entry, why, now)
        return news

    def reset(self, device: DeviceId, now: float) -> list[HealthNews]:
        """Trust a device again at once, because somebody vouches for it. Unknown: no news.

        With it go the GPU that it is a part of, or its own parts. A device that is still lost is
        not healed by this: the next reading misses it again.
        """
        entry = self._entries.get(device)
        if entry is None:
            return []
        news = [self._reset(device, entry, now)]
        for other, kin in self._entries.items():
            if other == entry.parent or kin.parent == device:
                news.append(self._reset(other, kin, now))
        return news

    # Steps

    def _observe_one(self, gpu: ProbedGpu, now: float) -> list[HealthNews]:
        device = gpu.facts.device
        entry = self._entry(device, now)
        entry.seen_at = now
        entry.parent = gpu.facts.parent
        was_present, entry.is_present = entry.is_present, True
        if not was_present or (entry.lost_in is not None and entry.lost_in != self._session):
            entry.lost_in = None  # It came back, or a new session has found it.
        complaint = _complaint(entry.uncorrected, gpu.sensors)
        entry.uncorrected = gpu.sensors.ecc_uncorrected
        if complaint is not None:
            return self._trouble(device, *complaint, now)
        return self._time_passes(device, entry, now)

    def _miss(self, device: DeviceId, entry: _Entry, why: str, now: float) -> list[HealthNews]:
        entry.is_present = False
        entry.lost_in = self._session
        return self._trouble(device, E.FAULT, why, now)

    def _time_passes(self, device: DeviceId, entry: _Entry, now: float) -> list[HealthNews]:
        rules = self._rules
        before, well_s = entry.health, now - entry.troubled_at
        match before:
            case H.SUSPECT if well_s >= rules.suspicion_s:
                self._advance(entry, E.STAYED_WELL, "", now)
            case H.QUARANTINED if well_s >= rules.quarantine_s and entry.lost_in is None:
                self._advance(entry, E.SEEN_WELL, entry.why, now)
            case H.RECOVERING if now - entry.since >= self._recovery_s(entry):
                self._advance(entry, E.STAYED_WELL, "", now)
            case H.HEALTHY if well_s >= RELAPSE_MEMORY_S:
                entry.n_faults = 0
            case _:
                pass
        if entry.health is before:
            return []
        why = entry.why or "nothing happened for long enough"
        return [HealthNews(device=device, before=before, after=entry.health, why=why)]

    def _reset(self, device: DeviceId, entry: _Entry, now: float) -> HealthNews:
        before = entry.health
        entry.lost_in = None
        entry.n_faults = 0
        self._advance(entry, E.RESET, "", now)
        return HealthNews(device=device, before=before, after=entry.health, why="it was reset")

    def _recovery_s(self, entry: _Entry) -> float:
        factor = min(2.0 ** (entry.n_faults - 1), RELAPSE_FACTOR_MAX)
        return self._rules.recovery_s * factor

    def _trouble(
        self, device: DeviceId, event: HealthEvent, why: str, now: float
    ) -> list[HealthNews]:
        entry = self._entry(device, now)
        before = entry.health
        entry.troubled_at = now
        after = advance(before, event)
        if after is before:
            # The first reason stays: what follows is mostly its consequence.
            return []
        if after is H.QUARANTINED:
            entry.n_faults += 1
        self._advance(entry, event, why, now)
        return [HealthNews(device=device, before=before, after=after, why=why)]

    def _note(self, device: DeviceId, xid: int, now: float) -> list[HealthNews]:
        entry = self._entry(device, now)
        entry.last_note = f"Xid {xid}: {APPLICATION_XIDS[xid]}"
        if now - entry.noted_at.get(xid, -NOTE_PERIOD_S) < NOTE_PERIOD_S:
            return []
        entry.noted_at[xid] = now
        return [
            HealthNews(device=device, before=entry.health, after=entry.health, why=entry.last_note)
        ]

    def _advance(self, entry: _Entry, event: HealthEvent, why: str, now: float) -> None:
        before = entry.health
        entry.health = advance(before, event)
        entry.why = why
        if entry.health is not before:
            entry.since = now

    def _entry(self, device: DeviceId, now: float) -> _Entry:
        entry = self._entries.get(device)
        if entry is None:
            if len(self._entries) >= RECORDS_MAX:
                oldest = min(self._entries, key=lambda known: self._entries[known].seen_at)
                del self._entries[oldest]
            entry = self._entries[device] = _Entry(since=now, seen_at=now, troubled_at=now)
        return entry


def _complaint(
    uncorrected_before: int | None, sensors: GpuSensors
) -> tuple[HealthEvent, str] | None:
    """Return the worst that is wrong with a device by its numbers.

    1. More memory errors were not corrected than at the last reading: an event was missed, or this
       driver tells none.
    2. It is about to turn itself off.
    3. It slows itself down.
    """
    errors, heat = sensors.ecc_uncorrected, sensors.temperature_c
    if errors is not None and uncorrected_before is not None and errors > uncorrected_before:  # 1
        return E.FAULT, f"{errors - uncorrected_before} uncorrectable memory errors"
    if heat is None:
        return None
    if sensors.shutdown_c and heat >= sensors.shutdown_c - HEAT_MARGIN_C:  # 2
        return E.FAULT, f"{heat} °C, and it turns itself off at {sensors.shutdown_c} °C"
    if sensors.slowdown_c and heat >= sensors.slowdown_c:  # 3
        return E.DOUBT, f"{heat} °C, and it slows down at {sensors.slowdown_c} °C"
    return None
