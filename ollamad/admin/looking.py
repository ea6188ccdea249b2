"""Snapshots of the supervisor in the words of the wire. Pure."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import Final

from ollamad import adminwire as wire
from ollamad.admin.meter import TokenMeter
from ollamad.admin.steering import LiveSensors, ToldFeature
from ollamad.gpu.devices import DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.runners.protocol import EngineGauges
from ollamad.supervisor.bulletin import Entry
from ollamad.supervisor.commands import NoteKind
from ollamad.supervisor.explanation import Explanation
from ollamad.supervisor.views import CoolingView, DeviceView, ResidentView, WaitingView

TEXT_CHARS_MAX: Final = 2000
"""Characters of one text in an answer, such as a crash's last words."""
FIELDS_MAX: Final = 32
"""Fields of one event that are told."""
DEMAND_PARTS: Final = (
    "weights_bytes",
    "kv_cache_bytes",
    "compute_bytes",
    "process_bytes",
    "output_bytes",
    "extra_bytes",
)
"""What `MemoryDemand.total_bytes` is the sum of, as far as a demand has it."""

_LEVELS: Final = (
    (logging.ERROR, wire.Level.ERROR),
    (logging.WARNING, wire.Level.WARNING),
    (logging.INFO, wire.Level.INFO),
)


def level_of(number: int) -> wire.Level:
    """Return the level of a number of the standard library's logging."""
    return next((level for least, level in _LEVELS if number >= least), wire.Level.DEBUG)


def runner(view: ResidentView, now: float, meter: TokenMeter) -> wire.Runner:
    """Return a runner as it is at *now*."""
    expires_in_s = view.expires_at - now
    return wire.Runner(
        runner=view.runner,
        pid=view.pid or None,
        model=view.name,
        weights=view.weights_id,
        state=wire.RunnerState(view.state.value),
        age_s=_seconds(view.age_s),
        progress=round(view.progress, 4),
        failures=view.n_failures,
        held_bytes=view.held_bytes,
        gpu_bytes=view.vram_bytes,
        n_ctx=view.n_ctx,
        n_slots=view.n_slots,
        requests=view.n_leases,
        is_pinned=view.is_pinned,
        expires_in_s=_seconds(expires_in_s) if math.isfinite(expires_in_s) else None,
        tokens_per_s=round(meter.tokens_per_s(view.runner), 2),
        engine=_engine(view.gauges) if view.gauges is not None else None,
    )


def _engine(gauges: EngineGauges) -> wire.Engine:
    return wire.Engine(**{field: getattr(gauges, field) for field in wire.Engine.__struct_fields__})


def waiting(view: WaitingView) -> wire.Waiting:
    """Return a request that waits."""
    return wire.Waiting(
        ticket=view.ticket,
        model=view.name,
        place=view.place,
        waited_s=_seconds(view.waited_s),
        priority=view.priority,
        client=_short(view.client),
        waits_for=_short(view.waits_for),
    )


def cooling(view: CoolingView, now: float) -> wire.Cooling:
    """Return a model that cools, as seen at *now*."""
    return wire.Cooling(
        model=view.name, reason=_short(view.reason), retry_after_s=_seconds(view.until - now)
    )


def explained(explanation: Explanation) -> wire.Explained:
    """Return what would happen to a request."""
    placement, demand = explanation.placement, explanation.demand
    needed = placement.amounts if placement is not None else {}
    room = {**dict.fromkeys(needed, 0), **explanation.room}
    return wire.Explained(
        model=explanation.name,
        verdict=explanation.verdict.value,
        lines=tuple(map(_short, explanation.lines)),
        demand=_kinds_of(demand) if demand is not None else (),
        room=tuple(
            wire.Room(device=name, needed_bytes=needed.get(name, 0), free_bytes=n_bytes)
            for name, n_bytes in room.items()
        ),
        n_gpu_layers=placement.n_gpu_layers if placement is not None else None,
        victims=explanation.victims,
    )


def _kinds_of(demand: MemoryDemand) -> tuple[wire.Demand, ...]:
    """Return the parts of *demand* that its total is the sum of, without those that are nothing."""
    parts = ((name.removesuffix("_bytes"), getattr(demand, name, 0)) for name in DEMAND_PARTS)
    return tuple(wire.Demand(kind=kind, bytes=n_bytes) for kind, n_bytes in parts if n_bytes)


def event(entry: Entry) -> wire.Event:
    """Return what happened, of which every known detail has its field and the rest are texts."""
    note, fields = entry.note, dict(entry.note.fields)
    return wire.Event(
        at=entry.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        kind=kind_of(note.kind),
        level=level_of(note.level),
        message=_short(note.message),
        model=_text_of(fields, "model"),
        runner=_whole_of(fields, "runner"),
        device=_text_of(fields, "device"),
        place=_whole_of(fields, "place"),
        fraction=_number_of(fields, "fraction"),
        reason=_text_of(fields, "reason"),
        fields={name: _short(str(fields[name])) for name in list(fields)[:FIELDS_MAX]},
    )


def kind_of(kind: NoteKind) -> str:
    """Return a note's kind as one word: `load_failed`."""
    return kind.value.replace(" ", "_")


def features(told: Iterable[ToldFeature]) -> tuple[wire.Feature, ...]:
    """Return what is on, and what is not there and why."""
    return tuple(
        wire.Feature(name=str(each.name), is_on=each.is_on, why=_short(each.why)) for each in told
    )


def _sensors(live: LiveSensors) -> wire.Sensors:
    return wire.Sensors(**{field: getattr(live, field) for field in wire.Sensors.__struct_fields__})


def devices(
    views: Sequence[DeviceView], sensors: Mapping[DeviceId, LiveSensors]
) -> tuple[wire.Device, ...]:
    """Return all devices, each with what its sensors say."""
    return tuple(_device(view, sensors.get(view.facts.device)) for view in views)


def _device(view: DeviceView, live: LiveSensors | None) -> wire.Device:
    facts = view.facts
    return wire.Device(
        device=facts.device,
        kind=wire.DeviceKind(facts.kind.value),
        name=facts.name,
        index=facts.index,
        parent=facts.parent,
        health=wire.DeviceHealth(view.health.value),
        why=_short(view.why),
        capacity_bytes=view.capacity_bytes,
        headroom_bytes=view.headroom_bytes,
        others_bytes=view.others_bytes,
        reserved_bytes=view.reserved_bytes,
        free_bytes=view.free_bytes,
        holders=tuple(
            wire.Holder(model=name, held_bytes=n_bytes) for name, n_bytes in view.holders.items()
        ),
        sensors=_sensors(live) if live is not None else None,
    )


def _text_of(fields: dict[str, object], name: str) -> str | None:
    value = fields.pop(name, None)
    return None if value is None else _short(str(value))


def _whole_of(fields: dict[str, object], name: str) -> int | None:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None  # Whatever else it is stays among the texts.
    del fields[name]
    return value


def _number_of(fields: dict[str, object], name: str) -> float | None:
    value = fields.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    del fields[name]
    return round(float(value), 4)


def _seconds(seconds: float) -> float:
    return round(max(seconds, 0.0), 3) if math.isfinite(seconds) else 0.0


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…"
