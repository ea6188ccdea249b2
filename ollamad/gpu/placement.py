"""Where a model goes. Pure: a demand and the room on each device to a `Placement`.

For now everything goes into main memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.units import format_bytes


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


ANYWHERE = PlacementRules()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which bytes on which device, and how many layers are offloaded."""

    amounts: Mapping[DeviceId, int]
    n_gpu_layers: int = 0
    devices: tuple[DeviceId, ...] = ()
    """The GPUs in the order in which the runner is to see them; empty for none."""
    tensor_split: tuple[float, ...] = ()
    """The share of the layers of each of `devices`; empty for one or none."""


def place(
    demand: MemoryDemand, room: Mapping[DeviceId, int], rules: PlacementRules = ANYWHERE
) -> Placement | None:
    """Return where a model goes if each device had *room* bytes for it, or `None` if nowhere."""
    del rules
    if demand.total_bytes > room.get(HOST, 0):
        return None
    return Placement(amounts={HOST: demand.total_bytes})


def explain_misfit(demand: MemoryDemand, budget: Budget) -> str:
    """Return why *demand* can never be met, with its numbers."""
    return (
        f"needs {format_bytes(demand.total_bytes)} of memory "
        f"(weights {format_bytes(demand.weights_bytes)}, "
        f"KV cache {format_bytes(demand.kv_cache_bytes)}, "
        f"computing {format_bytes(demand.compute_bytes + demand.process_bytes)}), but only "
        f"{format_bytes(budget.ceiling_bytes(HOST))} can be had (other programs use "
        f"{format_bytes(budget.others_bytes(HOST))}); try a smaller num_ctx, a smaller model, or "
        "a smaller quantisation"
    )
