"""Where a model goes. Pure: a demand and the room on each device to a `Placement`.

A model goes whole on one GPU, if one has room: on the one it fills best, so that larger models find
room later. Else it is spread over as few as will do; else as much of it as fits is offloaded, and
the rest stays in main memory. Search is exhaustive over how much is offloaded, and on more than one
GPU each is filled to the same share of its room. So a placement depends on nothing but its input,
and more room never makes a model fit worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import DEVICE_CONTEXT_BYTES, MemoryDemand
from ollamad.units import format_bytes

FILL_STEPS: Final = 64
"""How finely the share is chosen to which several GPUs are filled alike."""
VISIBLE_DEVICES: Final = "CUDA_VISIBLE_DEVICES"
NO_DEVICE: Final = "-1"
"""The driver shows devices up to the first that does not exist. An empty value would do the same,
but some programs take it for "not set"."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRules:
    """What restricts a placement."""

    allowed: frozenset[DeviceId] | None = None
    """GPUs that may be used; `None` for any. Main memory is always at hand."""
    n_gpu_layers: int | None = None
    """Layers to offload exactly, as a request may ask; `None` for as many as fit."""
    may_split: bool = True
    """Whether a model may be spread over several GPUs."""
    may_offload_partly: bool = True
    """Whether a part of the layers may stay in main memory when not all fit."""
    may_use_host: bool = True
    """Whether layers may be in main memory at all. It has inputs and results in any case."""


ANYWHERE: Final = PlacementRules()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which bytes on which device, and how many layers are offloaded."""

    amounts: Mapping[DeviceId, int]
    n_gpu_layers: int = 0
    """As llama.cpp counts: the last layers, and the output as one more."""
    devices: tuple[DeviceId, ...] = ()
    """The GPUs in the order in which the runner is to see them; empty for none."""
    tensor_split: tuple[float, ...] = ()
    """The share of the layers of each of `devices`; empty for one or none."""


def place(
    demand: MemoryDemand, room: Mapping[DeviceId, int], rules: PlacementRules = ANYWHERE
) -> Placement | None:
    """Return where a model goes if each device had *room* bytes for it, or `None` if nowhere.

    1. A number of layers is asked for: exactly those, on as few GPUs as will do.
    2. All of it on GPUs.
    3. As many layers as fit, if a part may stay in main memory.
    4. All of it in main memory.

    Where there is no GPU that may be used, a number that is asked for means nothing.
    """
    gpus = _gpus(room, rules)
    n_all = demand.n_units
    if rules.n_gpu_layers is not None and gpus and n_all:
        n_asked = min(rules.n_gpu_layers, n_all)
        return _offloaded(demand, n_asked, gpus, room, rules) if n_asked else _on_host(demand, room)
    for n_offloaded in _choices(n_all, rules) if gpus else ():
        placement = _offloaded(demand, n_offloaded, gpus, room, rules)
        if placement is not None:
            return placement
    return _on_host(demand, room) if rules.may_use_host else None


def environment_for(placement: Placement) -> dict[str, str]:
    """Return the variables that show a runner the GPUs of *placement*, in its order."""
    return {VISIBLE_DEVICES: ",".join(placement.devices) or NO_DEVICE}


_NOBODY: Final[Mapping[Hashable, str]] = MappingProxyType({})


def explain_misfit(
    demand: MemoryDemand,
    budget: Budget,
    names: Mapping[Hashable, str] = _NOBODY,
    rules: PlacementRules = ANYWHERE,
) -> str:
    """Return why *demand* can never be met, with its numbers, and what would help.

    *names* are those of the budget's holders, for people.
    """
    devices = [HOST, *(device for device, _ in _gpus(budget.ceilings(), rules))]
    room = "; ".join(_room_of(device, budget, names) for device in devices)
    return f"{_needs(demand, len(devices) > 1)}, but {room}; try {_remedies(demand, rules)}"


def _needs(demand: MemoryDemand, has_gpus: bool) -> str:
    parts = [
        f"weights {format_bytes(demand.weights_bytes)}",
        f"KV cache {format_bytes(demand.kv_cache_bytes)}",
        f"computing {format_bytes(demand.compute_bytes + demand.output_bytes)}",
        f"the process itself {format_bytes(demand.process_bytes)}",
    ]
    if demand.extra_bytes:
        parts.append(f"adapters and projectors {format_bytes(demand.extra_bytes)}")
    text = f"needs {format_bytes(demand.total_bytes)} of memory ({', '.join(parts)})"
    if has_gpus and demand.n_units:
        text += f", on each GPU that it uses {format_bytes(DEVICE_CONTEXT_BYTES)} more"
    return text


def _room_of(device: DeviceId, budget: Budget, names: Mapping[Hashable, str]) -> str:
    where = "main memory" if device == HOST else str(device)
    parts = [f"other programs use {format_bytes(budget.others_bytes(device))}"]
    if headroom_bytes := budget.headroom_bytes(device):
        parts.append(f"{format_bytes(headroom_bytes)} are kept free")
    parts += [
        f"{names[holder]} holds {format_bytes(n_bytes)}"
        for holder, n_bytes in budget.holders(device).items()
        if holder in names
    ]
    return (
        f"of {where} only {format_bytes(budget.ceiling_bytes(device))} can be had "
        f"({', '.join(parts)})"
    )


def _remedies(demand: MemoryDemand, rules: PlacementRules) -> str:
    """Return what would help, the most useful first."""
    remedies = ["a smaller model", "a smaller quantisation"]
    if demand.kv_cache_bytes + demand.compute_bytes > demand.weights_bytes // 8:
        remedies.insert(0, "a smaller num_ctx")
    if rules.n_gpu_layers:
        remedies.insert(0, "a smaller num_gpu")
    if not rules.may_use_host:
        remedies.insert(0, "adding host to the devices of its policy")
    return f"{', '.join(remedies[:-1])}, or {remedies[-1]}"


def _gpus(room: Mapping[DeviceId, int], rules: PlacementRules) -> list[tuple[DeviceId, int]]:
    """Return the GPUs that may be used with their room, the roomiest first."""
    gpus = [
        (device, n_bytes)
        for device, n_bytes in room.items()
        if device != HOST and n_bytes > 0 and (rules.allowed is None or device in rules.allowed)
    ]
    return sorted(gpus, key=lambda gpu: (-gpu[1], gpu[0]))


def _choices(n_all: int, rules: PlacementRules) -> range:
    """Return the numbers of units to try to offload, the best first."""
    if not n_all:
        return range(0)
    partly = rules.may_offload_partly and rules.may_use_host
    return range(n_all, 0 if partly else n_all - 1, -1)


def _on_host(demand: MemoryDemand, room: Mapping[DeviceId, int]) -> Placement | None:
    if demand.total_bytes > room.get(HOST, 0):
        return None
    return Placement(amounts={HOST: demand.total_bytes})


def _offloaded(
    demand: MemoryDemand,
    n_offloaded: int,
    gpus: Sequence[tuple[DeviceId, int]],
    room: Mapping[DeviceId, int],
    rules: PlacementRules,
) -> Placement | None:
    """Return the placement of the last *n_offloaded* units on as few of *gpus* as will do."""
    host_bytes = demand.host_bytes(n_offloaded)
    if host_bytes > room.get(HOST, 0):
        return None
    units = demand.unit_bytes[demand.n_units - n_offloaded :]
    fixed = demand.device_fixed_bytes
    fitting = [gpu for gpu in gpus if sum(units) + fixed <= gpu[1]]
    if fitting:
        tightest, _ = min(fitting, key=lambda gpu: (gpu[1], gpu[0]))
        return _placement(host_bytes, units, fixed, [tightest], [n_offloaded])
    if not rules.may_split:
        return None
    for n_gpus in range(2, min(len(gpus), n_offloaded) + 1):
        chosen = gpus[:n_gpus]
        counts = _shared_out(units, fixed, [n_bytes for _, n_bytes in chosen])
        if counts is not None:
            return _placement(host_bytes, units, fixed, [device for device, _ in chosen], counts)
    return None


def _placement(
    host_bytes: int,
    units: Sequence[int],
    fixed: int,
    devices: Sequence[DeviceId],
    counts: Sequence[int],
) -> Placement:
    amounts = {HOST: host_bytes}
    begin = 0
    for device, count in zip(devices, counts, strict=True):
        amounts[device] = sum(units[begin : begin + count]) + fixed
        begin += count
    # With whole numbers of layers as shares, llama.cpp's division of them comes out exactly.
    split = tuple(float(count) for count in counts) if len(counts) > 1 else ()
    return Placement(
        amounts=amounts, n_gpu_layers=len(units), devices=tuple(devices), tensor_split=split
    )


def _shared_out(units: Sequence[int], fixed: int, rooms: Sequence[int]) -> list[int] | None:
    """Return how many units each GPU takes, all filled to about the same share, or `None`.

    None of them is left empty: with one fewer, it was tried before.
    """
    if _filled(units, fixed, rooms) is None:
        return None
    shares = (
        [n_bytes * step // FILL_STEPS for n_bytes in rooms] for step in range(1, FILL_STEPS + 1)
    )
    return next(counts for share in shares if (counts := _filled(units, fixed, share)))


def _filled(units: Sequence[int], fixed: int, rooms: Sequence[int]) -> list[int] | None:
    """Return how many units each GPU takes when each is filled in turn; `None` if some are left."""
    counts: list[int] = []
    begin = 0
    for n_bytes in rooms:
        free, end = n_bytes - fixed, begin
        while end < len(units) and units[end] <= free:
            free -= units[end]
            end += 1
        counts.append(end - begin)
        begin = end
    return counts if begin == len(units) else None
