"""`FakeSteering`: a supervisor for the admin door's tests, that does as it is told and notes it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import trio

from ollamad.errors import InvalidName, ModelNotFound, OllamadError
from ollamad.gpu.devices import HOST, DeviceFacts, DeviceHealth, DeviceId, DeviceKind
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.placement import Placement
from ollamad.modelinfo import StoredModel, WeightsId
from ollamad.names import ModelName
from ollamad.options import LoadOptions
from ollamad.runners.protocol import EngineGauges
from ollamad.runners.states import RunnerState
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.decisions import Verdict
from ollamad.supervisor.events import RunnerId, TicketId
from ollamad.supervisor.explanation import Explanation
from ollamad.supervisor.views import CoolingView, DeviceView, ResidentView, WaitingView
from ollamad.units import GIB, MIB

GPU = DeviceId("GPU-1234")


def a_resident(name: str = "llama:8b", **changes: object) -> ResidentView:
    """Return a runner that is ready."""
    view = ResidentView(
        runner=RunnerId(1),
        pid=4712,
        since=0.0,
        started_at=0.0,
        age_s=60.0,
        amounts={GPU: 4 * GIB, HOST: GIB},
        placement=Placement(amounts={GPU: 4 * GIB, HOST: GIB}, n_gpu_layers=33, devices=(GPU,)),
        is_pinned=False,
        priority=0,
        n_failures=0,
        name=name,
        weights_id=WeightsId(f"weights of {name}"),
        state=RunnerState.READY,
        progress=1.0,
        held_bytes=5 * GIB,
        vram_bytes=4 * GIB,
        n_ctx=4096,
        n_slots=4,
        n_leases=2,
        expires_at=math.inf,
        gauges=EngineGauges(slots_busy=2, kv_cells=16384, kv_used=512, generated_tokens=100),
    )
    return dataclasses.replace(view, **changes)  # type: ignore[arg-type] # By name, in tests.


def a_device_view(device: DeviceId = HOST, **changes: object) -> DeviceView:
    """Return a device that holds one model."""
    is_host = device == HOST
    view = DeviceView(
        facts=DeviceFacts(
            device=device,
            name="main memory" if is_host else "NVIDIA A10",
            capacity_bytes=24 * GIB,
            kind=DeviceKind.HOST if is_host else DeviceKind.CUDA,
            index=None if is_host else 0,
        ),
        health=DeviceHealth.HEALTHY,
        why="",
        capacity_bytes=24 * GIB,
        headroom_bytes=512 * MIB,
        others_bytes=2 * GIB,
        reserved_bytes=5 * GIB,
        free_bytes=16 * GIB,
        holders={"llama:8b": 5 * GIB},
    )
    return dataclasses.replace(view, **changes)  # type: ignore[arg-type] # By name, in tests.


def a_waiting(place: int = 1, **changes: object) -> WaitingView:
    """Return a request that waits."""
    view = WaitingView(
        ticket=TicketId(place),
        name="qwen:32b",
        place=place,
        waited_s=1.5,
        priority=0,
        client="127.0.0.1",
        waits_for="room",
    )
    return dataclasses.replace(view, **changes)  # type: ignore[arg-type] # By name, in tests.


class FakeSteering:
    """A supervisor with what it is given; what it was told to do is in `told`."""

    def __init__(self) -> None:
        self.state = DaemonState.SERVING
        self.told: list[tuple[object, ...]] = []
        self.fails_with: OllamadError | None = None
        """What the next waiting order ends with."""
        self.breaks_with: Exception | None = None
        """A bug in whatever is asked of it."""
        self.preload_takes_s = 0.0
        self.resident_views: list[ResidentView] = [a_resident()]
        self.waiting_views: list[WaitingView] = [a_waiting()]
        self.device_views: list[DeviceView] = [a_device_view(), a_device_view(GPU)]
        self.cooling_views: list[CoolingView] = []

    def residents(self) -> Sequence[ResidentView]:
        if self.breaks_with is not None:
            raise self.breaks_with
        return self.resident_views

    def waiting(self) -> Sequence[WaitingView]:
        return self.waiting_views

    def devices(self) -> Sequence[DeviceView]:
        return self.device_views

    def cooling(self) -> Sequence[CoolingView]:
        return self.cooling_views

    def explain(self, model: StoredModel, options: LoadOptions) -> Explanation:
        self.told.append(("explain", model.name.display, options.n_ctx))
        return Explanation(
            name=model.name.display,
            verdict=Verdict.EVICT,
            why="others leave first",
            demand=MemoryDemand(
                weights_bytes=4 * GIB, kv_cache_bytes=GIB, compute_bytes=0, process_bytes=MIB
            ),
            placement=Placement(amounts={GPU: 5 * GIB}, n_gpu_layers=33, devices=(GPU,)),
            room={HOST: 16 * GIB, GPU: 2 * GIB},
            victims=("llama:8b",),
            lines=("needs 5.0 GiB, free 2.0", "llama:8b is idle for 92 s"),
        )

    def evict(self, weights_id: WeightsId, force: bool = False) -> bool:
        return self._tell("evict", weights_id, force)

    def restart(self, weights_id: WeightsId) -> bool:
        return self._tell("restart", weights_id)

    def reset(self, weights_id: WeightsId) -> bool:
        self._tell("reset", weights_id)
        return bool(self.cooling_views)

    def pin(self, weights_id: WeightsId, pinned: bool) -> bool:
        return self._tell("pin", weights_id, pinned)

    def drain_begin(self) -> None:
        self.told.append(("drain",))

    def resume(self) -> None:
        self.told.append(("resume",))

    async def preload(self, model: StoredModel, options: LoadOptions) -> None:
        self.told.append(("preload", model.name.display, options.n_ctx))
        try:
            await trio.sleep(self.preload_takes_s)
        except trio.Cancelled:
            self.told.append(("preload given up",))
            raise
        if self.fails_with is not None:
            raise self.fails_with

    def _tell(self, *order: object) -> bool:
        self.told.append(order)
        return any(view.weights_id == order[1] for view in self.resident_views)


class FakeModels:
    """A catalogue of given models."""

    def __init__(self, *models: StoredModel) -> None:
        self._models = {model.name.key: model for model in models}

    def remembered(self, wanted: str) -> StoredModel | None:
        return self._models.get(ModelName.parse(wanted).key)

    def find(self, wanted: str) -> StoredModel:
        if not wanted:
            raise InvalidName("invalid model name")
        raise ModelNotFound(f"model '{wanted}' not found")
