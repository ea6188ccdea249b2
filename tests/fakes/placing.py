"""A simple `place` for kernel tests: whole on one GPU, in halves, or in main memory.

It has what the kernel must cope with (several GPUs, splitting, worse placements where there is less
room) and numbers that a test can compute in its head.
"""

from __future__ import annotations

from collections.abc import Mapping

from ollamad.gpu.devices import HOST, DeviceId
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement, PlacementRules

N_LAYERS = 32
"""Layers that every model is said to have."""


def place_simply(
    demand: MemoryDemand, room: Mapping[DeviceId, int], rules: PlacementRules
) -> Placement | None:
    """Return where a model goes if each device had *room* bytes for it, or `None` if nowhere.

    1. Whole on the GPU with the least room that is enough.
    2. One half on each of the two GPUs with the most room.
    3. One half on a GPU, the other one in main memory.
    4. All of it in main memory.
    """
    host, whole = demand.process_bytes, demand.total_bytes - demand.process_bytes
    half = -(-whole // 2)
    gpus = sorted(
        (device for device in room if device != HOST and _may_use(device, rules)),
        key=lambda device: (room[device], device),
    )
    if rules.n_gpu_layers == 0:
        gpus = []
    if room.get(HOST, 0) >= host:
        for gpu in gpus:
            if room[gpu] >= whole:
                return _on({HOST: host, gpu: whole}, N_LAYERS)
        if len(gpus) > 1 and room[gpus[-2]] >= half:
            return _on({HOST: host, gpus[-1]: half, gpus[-2]: half}, N_LAYERS)
    if gpus and room[gpus[-1]] >= half and room.get(HOST, 0) >= host + half:
        return _on({HOST: host + half, gpus[-1]: half}, N_LAYERS // 2)
    if room.get(HOST, 0) >= demand.total_bytes:
        return _on({HOST: demand.total_bytes}, 0)
    return None


def _may_use(device: DeviceId, rules: PlacementRules) -> bool:
    return rules.allowed is None or device in rules.allowed


def _on(amounts: Mapping[DeviceId, int], n_gpu_layers: int) -> Placement:
    gpus = tuple(device for device in amounts if device != HOST)
    return Placement(amounts=amounts, n_gpu_layers=n_gpu_layers, devices=gpus)
