"""Where a model goes. Pure: demand to a `Placement`. For now everything is in main memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.units import format_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which bytes on which device, and how many layers are offloaded."""

    amounts: Mapping[DeviceId, int]
    n_gpu_layers: int = 0


def place(demand: MemoryDemand) -> Placement:
    """Return where a model with this demand goes."""
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
